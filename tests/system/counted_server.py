"""A server for ``up`` to supervise: PORT, STARTS. It answers with its pid, and notes every start in the file STARTS."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class _Pid(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), _Pid)
    with open(sys.argv[2], "a") as starts:
        starts.write(f"{os.getpid()}\n")
    server.serve_forever()
