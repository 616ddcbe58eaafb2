"""A local HTTP server of a folder's files."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder quietly; a file named in `short` stops halfway."""

    requested: list[str]
    short: set[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        if self.path in self.short:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"abc")
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, type[Handler]]]:
    """Serves the folder; yields its address, ending in "/", and what records the requests."""
    handler = type("TestHandler", (Handler,), {"requested": [], "short": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/", handler
        httpd.shutdown()
        thread.join()
