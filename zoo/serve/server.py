"""The server of the live page: it answers this machine, reads, and does nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import socketserver
import sys
from collections.abc import Callable, Sequence
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from zoo.serve.overview import Overview

HOST, PORT = "127.0.0.1", 8050
_TRIED = 20  # ports, from `PORT` on, where none is asked for
_HERE = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/plots.js": ("plots.js", "text/javascript"),
}
_LONGEST_QUERY = 4096
_HEADERS = {
    # Nothing comes from elsewhere, nothing goes elsewhere; plotly sets styles in the page itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# A site elsewhere may give its own name this machine's address, and would then be let in as the same origin.
_OWN_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.ASCII)


class Server(ThreadingHTTPServer):
    """Serves the page on this machine; `serve_forever` is what remains to be called.

    Args:
        directories: Runs, and folders in which to look for runs.
        port: 0 for any that is free, None for the first free one from 8050 on.

    Raises:
        ValueError: The port is in use, or is none.
    """

    daemon_threads = True

    def __init__(self, directories: Sequence[Path], port: int | None = None) -> None:
        if port is not None and not 0 <= port < 1 << 16:
            raise ValueError(f"`port` must be between 0 and 65535, got {port}.")
        self.overview = Overview(directories)
        for tried in range(PORT, PORT + _TRIED) if port is None else (port,):
            try:
                super().__init__((HOST, tried), _Handler)
                return
            except OSError as error:
                reason = error.strerror
        if port is None:
            raise ValueError(f"no port from {PORT} to {PORT + _TRIED - 1} is free; choose one with --port.")
        raise ValueError(f"port {port} cannot be used ({reason}); choose another one with --port.")

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Bind, without the look-up of this machine's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a page that was closed while it was being answered."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for a page, and one thread
    timeout = 120
    server: Server

    def __getattr__(self, name: str) -> Callable[[], None]:
        # Whatever the method, the base class asks for `do_` and its name.
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not _OWN_NAMES.fullmatch(self.headers.get("Host", "")):
            self._send(HTTPStatus.FORBIDDEN, b"This page is for this machine alone.\n")
        elif path == "/api":
            self._send_news(query)
        elif path == "/plotly.js" and plotly() is not None:
            # Its version is in the query: another one has another address.
            self._send(HTTPStatus.OK, Path(str(plotly())).read_bytes(), "text/javascript", "max-age=604800")
        elif path in _FILES:
            name, kind = _FILES[path]
            self._send(HTTPStatus.OK, (_HERE / name).read_bytes(), kind)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"There is nothing here.\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_news(self, query: str) -> None:
        asked = parse_qs(query[:_LONGEST_QUERY])
        parts = (part.partition(":") for part in asked.get("runs", [""])[0].split(",") if part)
        chosen = {key: cursor for key, _, cursor in parts}
        news = self.server.overview.since(asked.get("since", [""])[0], chosen)
        if news is None:
            self._send(HTTPStatus.NO_CONTENT, b"")
        else:
            news["plotly"] = None if plotly() is None else version("plotly")
            data = json.dumps(news, allow_nan=False, separators=(",", ":")).encode()
            self._send(HTTPStatus.OK, data, "application/json")

    def _refuse(self) -> None:
        self.close_connection = True  # what a body says is not read
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"This page can only be read.\n")

    def _send(
        self, status: HTTPStatus, data: bytes, kind: str = "text/plain", caching: str = "no-store"
    ) -> None:
        self.send_response(status)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", caching)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def version_string(self) -> str:
        return "gradfree"

    def log_message(self, *_: Any) -> None:
        """Keep silent: this is a page that one looks at, not a log."""


@cache
def plotly() -> Path | None:
    """Return the script of the installed plotly, None if there is none."""
    found = importlib.util.find_spec("plotly")
    script = None if found is None else Path(str(found.origin)).parent / "package_data" / "plotly.min.js"
    return script if script is not None and script.exists() else None
