# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that counts, for tests."""

import socket
import threading


class Proxy:
    """Between clients and `server` (host:port). `n_sent`: bytes that clients sent so far."""

    def __init__(self, server):
        host, port = server.rsplit(":", 1)
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.grpc_address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.n_sent = 0
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
            except OSError:
                return
            self._sockets += [client, server]
            for pair in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source, target, count):
        try:
            while data := source.recv(65536):
                self.n_sent += len(data) if count else 0
                target.sendall(data)
        except OSError:
            pass
        target.close()

    def stop(self):
        for s in self._sockets:
            s.close()
