"""A gateway before a model server that only waits: what it counts, without a Triton."""

import contextlib
import http.client
import os
import re
import signal
import struct
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gateways import KEYS, write_files

from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.operator_file import Address, read
from deploy.gateway.process import Gateway

INFER = "/v2/models/digits/infer"
PATIENCE_S = 60


class Waiting(ThreadingHTTPServer):
    """Answers every request once its door is open; knows how many came and how many got theirs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.door, self.answer = threading.Event(), b"{}"
        self.waiting = self.answered = 0
        self.door.set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self):
        self.door.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.waiting += 1
        self.server.door.wait(PATIENCE_S)
        self._answer(self.server.answer)
        self.server.answered += 1

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(b"{}")

    def _answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Door:
    """A gateway that is open, and can be killed, edited and restarted."""

    def __init__(self, folder, model_server, more=""):
        self.files = write_files(folder, more=more, tls=False)
        self.model_server, self.said = model_server, []
        self.gateway = self.made()

    def made(self):
        """Return a gateway by the file as it is now, not started."""
        address = Address("127.0.0.1", self.model_server.server_address[1])
        return Gateway(
            read(self.files.path), Upstream(address, address), "s" * 32,
            log=self.files.path.with_name("envoy.log"),
        )  # fmt: skip

    def edit(self, old, new):
        """Take an edited file, as ``serve`` does."""
        text = self.files.path.read_text()
        assert old in text
        self.files.path.write_text(text.replace(old, new))
        following = self.made()
        following.check(instead_of=self.gateway.operator)
        self.gateway.stop()
        self.gateway = following
        following.start()

    def kill(self):
        process = self.gateway._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.gateway.tend(self.said.append)

    def ask(self, client="alice", path=INFER, method="POST", body=b"{}"):
        """Return status, headers and text."""
        connection = http.client.HTTPConnection(self.files.url, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            headers = {"x-api-key": KEYS[client]} if client else {}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read().decode()

    def granted(self, tries, client="alice", threads=1):
        """Return how many of so many requests were answered, the others refused with 429."""
        with ThreadPoolExecutor(threads) as pool:
            statuses = [one[0] for one in pool.map(lambda _: self.ask(client), range(tries))]
        assert set(statuses) <= {200, 429}
        return statuses.count(200)

    def statistics(self):
        with urllib.request.urlopen(f"http://{self.files.statistics}/stats/prometheus") as answer:
            return answer.read().decode()

    def refused(self, client, reason):
        pattern = rf'envoy_gateway_refused{{client="{client}",reason="{reason}"}} (\d+)'
        (count,) = re.findall(pattern, self.statistics())
        return int(count)


def http2(client, requests):
    """Return the bytes of a client of HTTP/2 that asks and lets no byte of an answer come."""

    def frame(kind, flags, stream, content):
        return (
            struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content
        )

    def header(name, value):
        return struct.pack(f">BB{len(name)}sB{len(value)}s",
                           0, len(name), name.encode(), len(value), value.encode())  # fmt: skip

    fields = {
        ":method": "POST", ":scheme": "http", ":path": INFER, ":authority": "x",
        "x-api-key": KEYS[client], "content-length": "2",
    }  # fmt: skip
    headers = b"".join(header(name, value) for name, value in fields.items())
    settings, headers_frame, data_frame, end_headers, end_stream = 4, 1, 0, 4, 1
    no_window = struct.pack(">HI", 4, 0)
    said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0, no_window)
    for stream in range(1, 2 * requests, 2):
        said += frame(headers_frame, end_headers, stream, headers)
        said += frame(data_frame, end_stream, stream, b"{}")
    return said
