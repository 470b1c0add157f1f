"""The server of one page, talked to as a page would, without a browser."""

from __future__ import annotations

import configparser
import fnmatch
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from melanoma_edge import NOTICE
from melanoma_edge.runtimes.page_server import PAGE, PHONE, WEB, PageFailed, PageRefused, PageServer
from melanoma_edge.runtimes.web_server import LARGEST_BODY


class FakePage:
    """Asks for work and answers as web/page.js does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address, self.root, self.cookie = (parts.hostname, parts.port), parts.path, None

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = {}) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the answer to a request for exactly this path."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, headers | ({"Cookie": self.cookie} if self.cookie else {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            self.cookie = found.get("set-cookie", self.cookie or "").partition(";")[0] or None
            return answer.status, answer.read(), found
        finally:
            connection.close()

    def next(self) -> dict:
        return json.loads(self.request("GET", f"{self.root}next")[1])

    def post(self, what: str, body: bytes) -> int:
        return self.request("POST", self.root + what, body)[0]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "m.tflite").write_bytes(b"the model")
    (tmp_path / "secret.txt").write_bytes(b"somebody's photograph")
    (tmp_path / "runtime.wasm").write_bytes(b"\0asm")
    return {"model": tmp_path / "m.tflite", "node_modules/runtime.wasm": tmp_path / "runtime.wasm"}


@pytest.fixture
def server(files: dict[str, Path]) -> Iterator[PageServer]:
    server = PageServer(files)
    yield server
    server.close()


@pytest.fixture
def page(server: PageServer) -> FakePage:
    return FakePage(server.url)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_the_page_and_the_files_of_the_job_are_served_as_what_they_are(page: FakePage) -> None:
    for path, kind, content in (
        ("", "text/html; charset=utf-8", (WEB / "index.html").read_bytes()),
        ("page.js", "text/javascript", (WEB / "page.js").read_bytes()),
        ("model", "application/octet-stream", b"the model"),
        ("node_modules/runtime.wasm", "application/wasm", b"\0asm"),
    ):
        status, body, headers = page.request("GET", page.root + path)
        kept = "private, max-age=3600" if path.startswith("node_modules/") else "no-store"
        assert (status, body, headers["content-type"], headers["cache-control"]) == (200, content, kind, kept)
        assert "connect-src 'self'" in headers["content-security-policy"] and "default-src 'none'" in headers["content-security-policy"]


def test_nothing_else_is_served_and_nobody_without_the_token_is_heard(page: FakePage, tmp_path: Path) -> None:
    for path in ("secret.txt", "../secret.txt", "%2e%2e/secret.txt", "m.tflite", "package.json", str(tmp_path / "secret.txt"), "model/", "model?x"):
        assert page.request("GET", page.root + path)[:2] == (404, b""), path
    for path in ("/", "/model", "/index.html", "//model", f"/{'x' * 32}/model", page.root[:-2] + "/model", page.root.swapcase() + "model"):
        assert page.request("GET", path)[:2] == (404, b""), path
    assert page.request("POST", "/answer/1", b"x")[0] == 404
    assert page.post("anything", b"x") == 404
    assert page.request("POST", f"{page.root}answer/1", headers={"Content-Length": str(LARGEST_BODY + 1)})[0] == 400
    assert page.request("POST", f"{page.root}answer/1", headers={"Content-Length": "-1"})[0] == 400


def test_every_job_has_a_token_of_its_own(files: dict[str, Path]) -> None:
    servers = [PageServer(files) for _ in range(3)]
    try:
        assert len({urlsplit(server.url).path for server in servers}) == 3
        assert all(len(urlsplit(server.url).path) >= 32 and server.url.startswith("http://127.0.0.1:") for server in servers)
    finally:
        for server in servers:
            server.close()


def test_a_command_is_carried_out_and_its_answer_returned(server: PageServer, page: FakePage, pool: ThreadPoolExecutor) -> None:
    asked = pool.submit(server.ask, "logits", silence=30, count=3)
    command = page.next()
    assert command == {"kind": "logits", "id": 1, "count": 3} and server.opened.is_set()
    assert page.post("answer/99", b"of another command") == 204
    assert page.post("answer/1", bytes(range(12))) == 204
    assert asked.result(30) == bytes(range(12))
    again = pool.submit(server.ask, "times", silence=30)
    assert page.next()["id"] == 2
    page.post("answer/2", b"")
    assert again.result(30) == b""


def test_the_first_visitor_who_asks_for_work_is_the_only_one(server: PageServer, page: FakePage, pool: ThreadPoolExecutor) -> None:
    other = FakePage(server.url)
    assert other.request("GET", other.root)[0] == 200, "whoever only looks takes nothing away"
    asked = pool.submit(server.ask, "logits", silence=30)
    page.next()
    for path in ("", "model", "next", "alive"):
        assert other.request("GET", other.root + path)[:2] == (404, b""), path
    assert other.post("answer/1", b"of a stranger") == other.post("failed", b"") == 404
    assert page.request("GET", f"{page.root}model")[0] == 200 and page.post("answer/1", b"mine") == 204
    assert asked.result(30) == b"mine"


def test_a_name_that_somebody_else_made_point_here_is_not_answered(server: PageServer, page: FakePage) -> None:
    port = page.address[1]
    for host, status in ((f"127.0.0.1:{port}", 200), (f"localhost:{port}", 200), (f"[::1]:{port}", 200), (f"evil.example:{port}", 404), ("127.0.0.1.evil.example", 404), ("", 404)):
        assert page.request("GET", page.root, headers={"Host": host})[0] == status, host


def test_methods_that_no_page_uses_and_queries_are_refused(page: FakePage) -> None:
    for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "NONSENSE"):
        assert page.request(method, page.root)[:2] == (405, b""), method


def test_a_stranger_s_body_is_not_waited_for(page: FakePage) -> None:
    with socket.create_connection(page.address, timeout=10) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000000\r\n\r\n" + b"x" * 1000)
        assert connection.recv(64).startswith(b"HTTP/1.1 404")
    body = b"a=1&b=2" * 100_000
    assert page.request("POST", f"{page.root}anything", body, {"Content-Type": "application/x-www-form-urlencoded"})[0] == 404


def test_many_who_are_slow_keep_nobody_out(server: PageServer, page: FakePage) -> None:
    slow = []
    for _ in range(100):
        connection = socket.create_connection(page.address, timeout=10)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        slow.append(connection)
    try:
        assert page.request("GET", page.root)[0] == 200
    finally:
        for connection in slow:
            connection.close()


def test_what_the_page_reports_is_passed_on_and_keeps_it_alive(files: dict[str, Path], pool: ThreadPoolExecutor) -> None:
    lines: list[str] = []
    heard = threading.Event()
    server = PageServer(files, progress=lambda line: (lines.append(line), heard.set()))
    page = FakePage(server.url)
    asked = pool.submit(server.ask, "times", silence=4)
    page.next()
    for _ in range(10):
        time.sleep(0.5)
        assert page.post("progress", b"Measuring: 1\nof 2") == 204
    page.post("answer/1", b"done")
    assert asked.result(30) == b"done" and heard.is_set() and set(lines) == {"Measuring: 1 of 2"}
    server.close()


def test_a_failure_of_the_page_comes_in_its_own_words_and_stays(server: PageServer, page: FakePage, pool: ThreadPoolExecutor) -> None:
    asked = pool.submit(server.ask, "load", silence=30)
    page.next()
    page.post("failed", "RuntimeError: no such\noperator ü".encode())
    with pytest.raises(PageFailed, match="^RuntimeError: no such operator ü$"):
        asked.result(30)
    with pytest.raises(PageFailed, match="no such operator"):
        server.ask("logits", silence=30)


def test_what_the_page_refuses_is_said_and_the_next_command_goes_on(server: PageServer, page: FakePage, pool: ThreadPoolExecutor) -> None:
    asked = pool.submit(server.ask, "open", silence=30)
    page.next()
    page.post("refused/7", b"of another command")
    page.post("refused/1", "no WebGPU\nhere".encode())
    with pytest.raises(PageRefused, match="^no WebGPU here$"):
        asked.result(30)
    again = pool.submit(server.ask, "open", silence=30)
    assert page.next()["id"] == 2
    page.post("answer/2", b"{}")
    assert again.result(30) == b"{}"


def test_a_page_that_goes_away_is_noticed_at_once(server: PageServer, page: FakePage, pool: ThreadPoolExecutor) -> None:
    page.request("GET", page.root)
    alive = http.client.HTTPConnection(*page.address, timeout=30)
    alive.request("GET", f"{page.root}alive", headers={"Cookie": page.cookie})
    opened = alive.getresponse()
    assert opened.status == 200
    asked = pool.submit(server.ask, "logits", silence=600)
    page.next()
    opened.close()
    alive.close()
    with pytest.raises(PageFailed, match="the page was closed, or its tab crashed"):
        asked.result(30)


def test_a_page_that_never_comes_or_falls_silent_is_given_up(server: PageServer, page: FakePage, pool: ThreadPoolExecutor) -> None:
    with pytest.raises(PageFailed, match=r"the page did not come up for 0\.2 s"):
        server.ask("load", silence=0.2)
    page.next()
    asked = pool.submit(server.ask, "load", silence=0.5)
    page.next()
    with pytest.raises(PageFailed, match=r"the page gave no sign of life for 0\.5 s"):
        asked.result(30)


def test_trouble_of_whoever_runs_the_page_ends_the_wait(files: dict[str, Path]) -> None:
    server = PageServer(files, trouble=lambda: "the telephone rang")
    with pytest.raises(PageFailed, match="the telephone rang"):
        server.ask("load", silence=600)
    server.close()


def test_the_page_is_told_when_it_is_done(files: dict[str, Path], pool: ThreadPoolExecutor) -> None:
    server = PageServer(files)
    waiting = pool.submit(FakePage(server.url).next)
    assert server.opened.wait(30)
    server.close()
    assert waiting.result(30) == {"kind": "end"}


def test_whoever_opens_the_page_reads_what_it_does_and_that_it_is_no_medical_device() -> None:
    for name, words in (("index.html", "runs a model on this device"), ("phone.html", "It reads no picture of yours")):
        text = " ".join((WEB / name).read_text(encoding="utf-8").split())
        assert NOTICE in text and "<title>melanoma-edge" in text
        assert words in text and "<progress" in text and 'name="viewport"' in text


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for path in {*PAGE.values(), *PHONE.values()}:
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text and "https://" not in text, path.name


def test_the_wheel_carries_every_file_of_the_page_and_of_the_set_up() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    patterns = setup["options.package_data"]["melanoma_edge.runtimes"].split()
    found = {path.relative_to(WEB.parent).as_posix() for path in WEB.rglob("*") if path.is_file()}
    assert {f"web/{path.name}" for path in (*PAGE.values(), *PHONE.values())} | {"web/package.json", "web/package-lock.json"} == found
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in found)
