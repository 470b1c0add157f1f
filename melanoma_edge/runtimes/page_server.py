"""One web page that works for this process: its files served, commands given to it, answers taken.

In: the files of one job, and commands (JSON). Out: what the page posts back, or why it could not. The page
(web/page.js) may run in a browser on this machine or on a phone in the same network: whoever knows the address,
which holds a random token of this job, and nobody else, gets the files of this job, and no others.

The page asks for its next command and is kept waiting until there is one. It also holds one request open for as
long as it lives, so that a tab that is closed or crashes is noticed at once.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from melanoma_edge.runtimes.protocol import one_line

INDEX = "index.html"
WEB = Path(__file__).parent / "web"
PAGE = (INDEX, "style.css", "page.js", "numbers.js", "litert.js", "onnxruntime.js")
"""The page's own files, in :data:`WEB`."""

LARGEST_ANSWER = 64 * 2**20
_KEPT_WAITING = 20.0
"""Seconds after which a page that waits for a command has to ask again: some networks cut longer silences."""
_LOOK = 0.05
"""Seconds between two looks at whether whoever runs the page has trouble."""
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html; charset=utf-8", ".css": "text/css"}
"""Content types that matter: browsers compile WebAssembly while it comes in, and run modules, of these types only."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; connect-src 'self'; "
    "style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""The policy keeps the page from talking to anybody else (`unsafe-inline` is for its import map). Isolated from other
origins it gets a clock of 5 microseconds instead of 100."""


class PageFailed(Exception):
    """The page could not carry out a command, or is gone; one line that says why."""


class PageServer:
    """Serves `files`, {path in the address: file}, and the page itself, and talks with the page.

    It listens on loopback only. `trouble` is asked, while an
    answer is awaited, whether whoever runs the page has a reason why none will come. `progress` gets the page's lines.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        trouble: Callable[[], str | None] = lambda: None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._token = secrets.token_urlsafe(24)
        self._contents: dict[str, Path | bytes] = {name: WEB / name for name in PAGE} | dict(files)
        self._trouble, self._progress = trouble, progress
        self._commands: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._last_sign = time.monotonic()
        self._asked = 0
        self._failed: str | None = None
        self.opened = threading.Event()
        """Set once a page has asked for work."""
        self._gone = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": _LOOK}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The page's address on this machine."""
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}/{self._token}/"

    def publish(self, name: str, content: bytes | Path) -> None:
        """Serve `content` under `name` from now on."""
        self._contents[name] = content

    def ask(self, kind: str, *, silence: float, **details: object) -> bytes:
        """Have the page carry out the command `kind` and return its answer.

        Raises PageFailed when the page reports a failure, goes away, has given no sign of life for `silence`
        seconds, or when `trouble` has something to say.
        """
        self._asked += 1
        wanted = f"answer/{self._asked}"
        self._last_sign = time.monotonic()
        self._commands.put(json.dumps({"kind": kind, "id": self._asked, **details}).encode())
        while True:
            with contextlib.suppress(queue.Empty):
                what, body = self._answers.get(timeout=_LOOK)
                if what == wanted:
                    return body
                if what == "failed":
                    self._failed = one_line(Exception(body.decode("utf-8", "replace")))
            if reason := self._failed or self._trouble():
                raise PageFailed(reason)
            if self._gone.is_set():
                raise PageFailed("the page was closed, or its tab crashed, before it gave an answer")
            if time.monotonic() - self._last_sign > silence:
                what = "gave no sign of life" if self.opened.is_set() else "did not come up"
                raise PageFailed(f"the page {what} for {silence:g} s")

    def close(self) -> None:
        """Tell the page that it is done and stop serving."""
        self._commands.put(json.dumps({"kind": "end"}).encode())
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What the handler calls, each in a thread of its own.

    def path(self, address: str) -> str | None:
        """Return the part of a request's path behind the token; None for one without it."""
        token, _, name = address.removeprefix("/").partition("/")
        return (name or INDEX) if secrets.compare_digest(token.encode(), self._token.encode()) else None

    def content(self, name: str) -> bytes | None:
        """Return what is served under `name`."""
        content = self._contents.get(name)
        return content.read_bytes() if isinstance(content, Path) else content

    def next_command(self) -> bytes | None:
        """Return the next command; None when there is none for a while."""
        self._lives()
        self.opened.set()
        try:
            return self._commands.get(timeout=_KEPT_WAITING)
        except queue.Empty:
            return None

    def take(self, what: str, body: bytes) -> bool:
        """Take what the page posted; return whether it is something that a page posts."""
        self._lives()
        if what == "progress":
            self._progress(one_line(Exception(body.decode("utf-8", "replace"))))
        elif what == "failed" or what.startswith("answer/"):
            self._answers.put((what, body))
        else:
            return False
        return True

    def gone(self) -> None:
        """Note that the page went away."""
        self._gone.set()

    def _lives(self) -> None:
        self._last_sign = time.monotonic()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a page that goes away in the middle of a request is noticed elsewhere."""


def _handler(page: PageServer) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests for `page`."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "melanoma-edge", ""

        def do_GET(self) -> None:  # noqa: N802 (the name that http.server calls)
            name = page.path(self.path)
            if name == "next":
                command = page.next_command()
                self._send(HTTPStatus.NO_CONTENT if command is None else HTTPStatus.OK, command or b"", "application/json")
            elif name == "alive":
                self._send(HTTPStatus.OK, None, "text/plain")
                with contextlib.suppress(OSError):
                    while self.connection.recv(1024):
                        pass
                page.gone()
            elif name is not None and (content := page.content(name)) is not None:
                suffix = Path(name).suffix
                self._send(HTTPStatus.OK, content, _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream"))
            else:
                self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")

        def do_POST(self) -> None:  # noqa: N802 (the name that http.server calls)
            name = page.path(self.path)
            length = self.headers.get("Content-Length", "")
            if name is None:
                self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
            elif not length.isdecimal() or int(length) > LARGEST_ANSWER:
                self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"", "text/plain")
            else:
                body = self.rfile.read(int(length))
                if len(body) == int(length):
                    self._send(HTTPStatus.NO_CONTENT if page.take(name, body) else HTTPStatus.NOT_FOUND, b"", "text/plain")

        def _send(self, status: HTTPStatus, body: bytes | None, kind: str) -> None:
            """Send an answer; without a body, one that stays open."""
            self.send_response(status)
            for header, value in _HEADERS.items():
                self.send_header(header, value)
            self.send_header("Content-Type", kind)
            if body is not None and status != HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return Handler
