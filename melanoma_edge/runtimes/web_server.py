"""A small web server in a thread of its own: what it serves says one object, who may ask is decided here.

In: a site, an address to listen on, TLS or not. Out: a server that answers nobody without the token in its address, gives strangers no time and no memory,
and tells browsers to talk to nobody else. The HTTP itself is Tornado's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import secrets
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, stream_request_body

from melanoma_edge.errors import Missing

LARGEST_BODY = 64 * 2**20
LARGEST_HEADER = 16 * 2**10
HEADER_SECONDS = 20.0
"""So long may a connection stay without a whole request."""
BODY_SECONDS = 120.0
"""So long may a whole body take to come."""
MOST_CONNECTIONS = 256
"""Or half of the files that this process may have open, where that is less."""
HEADERS = {
    "Server": "melanoma-edge",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self' blob:; "
    "style-src 'self'; img-src data:; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
}
"""The policy keeps a page from talking to anybody else (`unsafe-inline` is for its import map, `blob:` for the threads of WebAssembly). Isolated from other
origins it gets threads, and a clock of 5 microseconds instead of 100."""
COOKIE = "visitor"
BEAT_SECONDS = 10.0
"""So often does a request that stays open get a byte: networks and browsers end silent ones."""


class Answer:
    """What a site says to a request; `body` None stays open until the visitor goes away."""

    def __init__(self, status: HTTPStatus = HTTPStatus.OK, body: bytes | None = b"", kind: str = "text/plain", *, lasting: bool = False) -> None:
        self.status, self.body, self.kind = status, body, kind
        self.lasting = lasting
        """Whether a browser may keep it: its address holds the token, which is new every time."""


NOTHING = Answer(HTTPStatus.NOT_FOUND)


class Site(Protocol):
    """What a server serves. Its methods are called on the server's thread; `name` is the path behind the token."""

    async def get(self, name: str, visitor: str) -> Answer: ...

    async def post(self, name: str, visitor: str, body: bytes) -> Answer: ...

    def gone(self, name: str, visitor: str) -> None:
        """A request that was kept open, or waited, ended with its visitor."""


class WebServer:
    """Serves `site` below an address with a random token until :meth:`close`.

    `host` is an address of this machine; `certificate` (a context for servers) makes it https. Raises Missing where it cannot listen there.
    """

    def __init__(self, site: Site, *, host: str = "127.0.0.1", port: int = 0, certificate: ssl.SSLContext | None = None) -> None:
        self.token = secrets.token_urlsafe(24)
        self._site, self._host, self._scheme = site, host, "https" if certificate else "http"
        logging.getLogger("tornado").addHandler(logging.NullHandler())
        logging.getLogger("tornado").propagate = False  # strangers' broken requests are no news
        try:
            self._sockets = bind_sockets(port, address=host)
        except (OSError, UnicodeError) as error:
            raise Missing(f"nothing can be served at {host}{f':{port}' if port else ''} ({getattr(error, 'strerror', None) or error}): name an address of this machine, or leave --host out") from None
        self.port = self._sockets[0].getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._serve, args=(certificate,), daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed

    def url(self, host: str | None = None) -> str:
        """Return the address of the site, with `host` for the machine where another one is meant than it listens on."""
        host = host or self._host
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/{self.token}/"

    def call(self, function: Callable[..., Any], *arguments: object) -> None:
        """Call `function` on the server's thread, soon."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def run(self, work: Awaitable[Any]) -> Any:
        """Carry out `work` on the server's thread and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Stop serving."""
        self.call(self._loop.stop)
        self._thread.join()

    def path(self, address: str) -> str | None:
        """Return the part of a request's path behind the token; None for one without it."""
        token, _, name = address.removeprefix("/").partition("/")
        return name if secrets.compare_digest(token.encode(), self.token.encode()) else None

    def _serve(self, certificate: ssl.SSLContext | None) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda loop, context: None)  # a visitor who goes away in the middle of something is noticed elsewhere
        try:
            self._loop.run_until_complete(self._start(certificate))
        except Exception as error:
            self._failed = error
            for one in self._sockets:
                one.close()
            return self._loop.close()
        finally:
            self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            self._server.stop()
            with contextlib.suppress(TimeoutError):
                self._loop.run_until_complete(asyncio.wait_for(self._server.close_all_connections(), 2))
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _start(self, certificate: ssl.SSLContext | None) -> None:
        application = Application([(r".*", _Handler, {"server": self, "site": self._site})], log_function=lambda handler: None)
        self._server = _Server(
            application,
            ssl_options=certificate,
            max_body_size=LARGEST_BODY,
            max_buffer_size=LARGEST_BODY + LARGEST_HEADER,
            max_header_size=LARGEST_HEADER,
            idle_connection_timeout=HEADER_SECONDS,
            body_timeout=BODY_SECONDS,
            no_keep_alive=False,
        )
        self._server.add_sockets(self._sockets)


class _Server(HTTPServer):
    """Tornado's, with a limit on how many are heard at a time."""

    def _handle_connection(self, connection: socket.socket, address: object) -> None:
        if len(self._connections) >= _most_connections():
            connection.close()
        else:
            super()._handle_connection(connection, address)


@stream_request_body
class _Handler(RequestHandler):
    """One request. Its body is kept for those alone who know the token."""

    SUPPORTED_METHODS = ("GET", "POST")

    def initialize(self, server: WebServer, site: Site) -> None:
        self._server, self._site = server, site
        self._waiting: asyncio.Task | None = None
        self._left = asyncio.Event()
        self._body = bytearray()

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse strangers before a byte of their body is kept."""
        if self._name() is None:
            self.set_header("Connection", "close")
            self._send(NOTHING)
            self.finish()

    def data_received(self, chunk: bytes) -> None:
        """Keep what an expected visitor sends; Tornado bounds it."""
        if not self._finished:
            self._body += chunk

    async def get(self) -> None:
        name = self._name()
        if self.request.query:
            return self._send(NOTHING)
        visitor = self.get_cookie(COOKIE)
        if visitor is None:
            visitor = secrets.token_urlsafe(16)
            self.set_cookie(COOKIE, visitor, path=f"/{self._server.token}/", httponly=True, samesite="Strict", secure=self.request.protocol == "https")
        self._waiting = asyncio.ensure_future(self._site.get(name, visitor))
        try:
            answer = await self._waiting
        except asyncio.CancelledError:
            return
        self._waiting = None
        self._send(answer)
        if answer.body is None:
            with contextlib.suppress(StreamClosedError):
                while not self._left.is_set():
                    self.write(b"\n")
                    await self.flush()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._left.wait(), BEAT_SECONDS)
            self._site.gone(name, visitor)

    async def post(self) -> None:
        name = self._name()
        self._send(await self._site.post(name, self.get_cookie(COOKIE) or "", bytes(self._body)))

    def on_connection_close(self) -> None:
        self._left.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def write_error(self, status_code: int, **_: object) -> None:
        """Say nothing more than the status."""
        self.finish()

    def _name(self) -> str | None:
        """Return what is asked for; None for who does not know the token, or came by a name that somebody else made point here (DNS rebinding)."""
        return self._server.path(self.request.path) if _by_address(self.request.host_name) else None

    def _send(self, answer: Answer) -> None:
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.kind)
        if answer.lasting:
            self.set_header("Cache-Control", "private, max-age=3600")
        if answer.body:
            self.write(answer.body)

    def compute_etag(self) -> None:
        """Nothing is kept, so nothing needs a mark."""


def _most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // 2)


def _by_address(host: str) -> bool:
    """Return whether a request names this machine by an address, or as the machine that it comes from."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
