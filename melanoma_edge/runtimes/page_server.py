"""One web page that works for this process: its files served, commands given to it, answers taken.

In: the files of one job, and commands (JSON). Out: what the page posts back, or why it could not. The page
(web/page.js, or web/phone.js) may run in a browser on this machine or on a phone in the same network: whoever knows the address,
which holds a random token of this job, and nobody else, gets the files of this job, and no others.

The page asks for its next command and is kept waiting until there is one. It also holds one request open for as
long as it lives, so that a tab that is closed or crashes is noticed at once. Whoever first asks for work is the one that works: later visitors get nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
import queue
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from melanoma_edge.runtimes.protocol import one_line
from melanoma_edge.runtimes.web_server import NOTHING, Answer, WebServer

INDEX = "index.html"
WEB = Path(__file__).parent / "web"
_SHARED = ("style.css", "printed.js", "numbers.js", "litert.js", "onnxruntime.js")
PAGE = {name: WEB / name for name in (INDEX, "page.js", *_SHARED)}
"""The page that runs one model: {what a file is called in the address: file}."""
PHONE = {INDEX: WEB / "phone.html"} | {name: WEB / name for name in ("phone.js", "frame.html", "frame.js", "sha256.js", *_SHARED)}
"""The page that measures a device."""
_KEPT_WAITING = 20.0
"""Seconds after which a page that waits for a command has to ask again: some networks cut longer silences."""
_LOOK = 0.05
"""Seconds between two looks at whether whoever runs the page has trouble."""
_FAREWELL = 2.0
"""Seconds that a page gets to hear that it is done."""
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html; charset=utf-8", ".css": "text/css"}
"""Content types that matter: browsers compile WebAssembly while it comes in, and run modules, of these types only."""


class PageFailed(Exception):
    """The page could not carry out a command, or is gone; one line that says why."""


class PageRefused(Exception):
    """The page could not carry out one command, and waits for the next; one line that says why."""


class PageServer:
    """Serves `files`, {path in the address: file}, and the page itself, and talks with the page.

    It listens on loopback unless `host` is another address of this machine; `certificate` makes it https. `page` names the page's own files by
    what they are called in the address. A page whose open request ended may open another one within `grace` seconds. `trouble` is asked, while an
    answer is awaited, whether whoever runs the page has a reason why none will come. `progress` gets the page's lines.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        page: Mapping[str, Path] = PAGE,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: ssl.SSLContext | None = None,
        grace: float = 0.0,
        trouble: Callable[[], str | None] = lambda: None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._contents: dict[str, Path | bytes] = {**page, **files}
        self._trouble, self._progress = trouble, progress
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._last_sign = time.monotonic()
        self._asked = 0
        self._failed: str | None = None
        self._worker: str | None = None
        self.opened = threading.Event()
        """Set once a page has asked for work."""
        self._gone = threading.Event()
        self._grace, self._alive = grace, 0
        self._commands: asyncio.Queue[bytes] = asyncio.Queue()
        self._server = WebServer(self, host=host, port=port, certificate=certificate)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def url(self) -> str:
        """The page's address on this machine."""
        return self._server.url()

    def url_for(self, host: str) -> str:
        """Return the page's address for those who know this machine as `host`."""
        return self._server.url(host)

    def publish(self, name: str, content: bytes | Path) -> None:
        """Serve `content` under `name` from now on."""
        self._contents[name] = content

    def ask(self, kind: str, *, silence: float, **details: object) -> bytes:
        """Have the page carry out the command `kind` and return its answer.

        Raises PageRefused when the page says that this one cannot be done there, PageFailed when the page reports a failure, goes away, has given no sign of life for `silence`
        seconds, or when `trouble` has something to say.
        """
        self._asked += 1
        wanted = f"answer/{self._asked}"
        self._last_sign = time.monotonic()
        self._give({"kind": kind, "id": self._asked, **details})
        while True:
            with contextlib.suppress(queue.Empty):
                what, body = self._answers.get(timeout=_LOOK)
                if what == wanted:
                    return body
                if what == f"refused/{self._asked}":
                    raise PageRefused(one_line(Exception(body.decode("utf-8", "replace"))))
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
        self._give({"kind": "end"})
        with contextlib.suppress(TimeoutError):
            self._server.run(asyncio.wait_for(self._heard(), _FAREWELL if self.opened.is_set() and not self._gone.is_set() else 0))
        self._server.close()

    def _give(self, command: dict) -> None:
        self._server.call(self._commands.put_nowait, json.dumps(command).encode())

    # What the server calls, on its own thread.

    async def get(self, name: str, visitor: str) -> Answer:
        """Answer a request of the page: its next command, that it is alive, or a file."""
        if self._worker not in (None, visitor):
            return NOTHING
        if name == "next":
            command = await self._next(visitor)
            return Answer(HTTPStatus.NO_CONTENT) if command is None else Answer(body=command, kind="application/json")
        if name == "alive":
            self._alive += 1
            return Answer(body=None)
        content = self._contents.get(name or INDEX)
        if content is None:
            return NOTHING
        suffix = Path(name or INDEX).suffix
        body = content.read_bytes() if isinstance(content, Path) else content
        kind = _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
        return Answer(body=body, kind=kind, lasting=name.startswith("node_modules/"))

    async def post(self, name: str, visitor: str, body: bytes) -> Answer:
        """Take what the page posted."""
        if self._worker not in (None, visitor):
            return NOTHING
        self._lives()
        if name == "progress":
            self._progress(one_line(Exception(body.decode("utf-8", "replace"))))
        elif name == "failed" or name.startswith(("answer/", "refused/")):
            self._answers.put((name, body))
        else:
            return NOTHING
        return Answer(HTTPStatus.NO_CONTENT)

    def gone(self, name: str, visitor: str) -> None:
        """Note that the page went away."""
        if name != "alive":
            return
        self._alive -= 1
        if visitor == self._worker:
            asyncio.get_running_loop().call_later(self._grace, lambda: self._alive or self._gone.set())

    async def _next(self, visitor: str) -> bytes | None:
        """Return the next command; None when there is none for a while."""
        self._lives()
        self._worker = visitor
        self.opened.set()
        try:
            return await asyncio.wait_for(self._commands.get(), _KEPT_WAITING)
        except TimeoutError:
            return None
        finally:
            self._lives()

    async def _heard(self) -> None:
        """Wait until every command has been fetched."""
        while not self._commands.empty():
            await asyncio.sleep(_LOOK)
        await asyncio.sleep(_LOOK)  # and is on its way

    def _lives(self) -> None:
        self._last_sign = time.monotonic()
