"""A loopback HTTP server for archives that can misbehave for selected files.

    with ArchiveServer(folder) as server:
        server.faults["a/stl10_binary.tar.gz"] = {"cut"}
        url = server.url("stl10_binary.tar.gz", mirror="a")

A mirror is just the first component of the path: all serve the same folder. Faults, given as a set:
404; login (status 200 and a page); wrong (one byte differs); short (half the file, with a matching Content-Length);
truncated (every response ends halfway, whatever was announced); cut (the same, once); stall (silence
halfway); 503 twice; no ranges (Range is ignored); changed (another ETag for each request); one byte (each response
ends after one byte, whatever was announced).

`server.raw["a/..."] = b"HTTP/1.1 ..."` is sent verbatim instead of a response, and the connection closed;
`server.pace["a/..."] = (1, 0.05)` sends the data in chunks of one byte, 0.05 s apart.
"""

import hashlib
import itertools
import re
import ssl
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE = Path(__file__).with_name("loopback.pem")  # self-signed, for 127.0.0.1, with its key
KNOWN = {"404", "login", "wrong", "short", "truncated", "cut", "stall", "503 twice", "no ranges", "changed", "one byte"}


class ArchiveServer:
    """`requests` lists the requests received: (path, Range header or None, status)."""

    def __init__(self, folder, *, tls=False):
        self.folder = Path(folder)
        self.faults, self.raw, self.pace = {}, {}, {}
        self.requests = []
        self.headers = []
        self.times = Counter()
        self.serial = itertools.count()
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self.http.server_address[1]}"

    def url(self, file, mirror="a"):
        return f"{self.address}/{mirror}/{file}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: ArchiveServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.lstrip("/").partition("?")[0]
        owner = self.owner
        faults = owner.faults.get(path, set())
        assert faults <= KNOWN, faults - KNOWN
        owner.times[path] += 1
        owner.headers.append(dict(self.headers))
        if path in owner.raw:
            owner.requests.append((path, self.headers.get("Range"), None))
            self.close_connection = True
            return self.send(path, owner.raw[path])
        file = owner.folder / path.partition("/")[2]
        if "404" in faults or not file.is_file():
            return self.refuse(path, 404)
        if "503 twice" in faults and owner.times[path] <= 2:
            return self.refuse(path, 503)
        data = b"<html>log in</html>" if "login" in faults else file.read_bytes()
        if "wrong" in faults:
            data = data[:-1] + bytes([data[-1] ^ 255])
        if "short" in faults:
            data = data[: len(data) // 2]
        self.answer(path, data, faults)

    def refuse(self, path, status):
        self.owner.requests.append((path, self.headers.get("Range"), status))
        self.send_error(status)

    def answer(self, path, data, faults):
        tag = f'"{hashlib.md5(data).hexdigest()}{next(self.owner.serial) if "changed" in faults else ""}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if "no ranges" in faults or self.headers.get("If-Range", tag) != tag:
            wanted = None
        start, stop = (int(wanted[1]), int(wanted[2] or len(data) - 1) + 1) if wanted else (0, len(data))
        if wanted and start >= len(data):
            return self.refuse(path, 416)
        stop = min(stop, len(data))
        self.owner.requests.append((path, self.headers.get("Range"), 206 if wanted else 200))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", tag)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        stops_early = faults & {"truncated", "stall"} or ("cut" in faults and self.owner.times[path] == 1)
        sent = min(stop, max(start, len(data) // 2)) if stops_early else stop
        sent = min(sent, start + 1) if "one byte" in faults else sent
        self.send(path, data[start:sent])
        if "stall" in faults:
            self.owner.released.wait(20)

    def send(self, path, data):
        size, pause = self.owner.pace.get(path, (len(data) or 1, 0))
        try:
            for first in range(0, len(data), size):
                self.wfile.write(data[first : first + size])
                self.wfile.flush()
                if pause and self.owner.released.wait(pause):
                    return
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client closed the connection
