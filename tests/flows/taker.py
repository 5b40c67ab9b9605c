"""Another user of the machine, who waits for the port of a server that is killed."""

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path


class Taker:
    """Another user of the machine, who listens at the port of a server that was killed, and keeps
    what he is told. `certificate` and `key`: of his own making, for the same address."""

    def __init__(self, port: int, files: tuple[Path, Path] | None) -> None:
        self.heard = b""
        self._context = None
        if files:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*files)
        self._listens = socket.socket()
        self._listens.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until = time.monotonic() + 20
        while not self._takes(port):
            assert time.monotonic() < until, "the port did not come free"
            time.sleep(0.001)
        threading.Thread(target=self._answer, daemon=True).start()

    def _takes(self, port: int) -> bool:
        try:
            self._listens.bind(("127.0.0.1", port))
        except OSError:
            return False
        self._listens.listen()
        return True

    def _answer(self) -> None:
        while True:
            try:
                line, _ = self._listens.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), line:
                line.settimeout(5)
                if self._context:
                    line = self._context.wrap_socket(line, server_side=True)
                self.heard += line.recv(65536)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
                line.close()

    def close(self) -> None:
        self._listens.shutdown(socket.SHUT_RDWR)
        self._listens.close()
