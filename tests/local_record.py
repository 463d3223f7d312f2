"""Zenodo on loopback, which can misbehave in the ways that networks and strangers do, and archives made in memory."""

import gzip
import hashlib
import http.server
import json
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ENDLESS = 64 * 2**20  # bytes that an endless answer has, should nobody hang up


@dataclass
class Hosted:
    """A file of a record, and how its server misbehaves; counts go down as they are used."""

    data: bytes
    md5: str | None = "right"  # what the listing says: "right", "wrong", or nothing
    size_listed: int | None = None  # in place of the true one
    drops: int = 0  # answers that break off halfway
    stalls: int = 0  # answers that send half and then hang
    length: int | None = None  # Content-Length in place of the true one
    endless: bool = False  # no Content-Length, and no end
    redirects: int = 0  # before the file comes, each to another path; 1000: a loop
    status: int | None = None  # in place of an answer
    head_status: int | None = None
    ranges: bool = True  # else Range is ignored
    sent: bytes | None = None  # in place of the data
    pause: float = 0  # seconds between pieces of 4096 bytes


class RecordServer(http.server.ThreadingHTTPServer):
    """The addresses of Zenodo that a fetch asks. `asked`: (method, path, Range, Authorization) in their order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.records: dict[str, dict[str, Hosted]] = {}
        self.licences: dict[str, object] = {}
        self.listings: dict[str, int | bytes] = {}  # a status, or other bytes, in place of a record's listing
        self.asked: list[tuple[str, str, str, str]] = []
        self.endless_sent = 0  # bytes
        self.slept: list[float] = []  # seconds that a client would have waited
        self.busy = 0  # requests that get 429 before others are answered
        self.retry_after = ""  # which 429 and 503 say then
        self.agents: set[str] = set()
        self.refuses = ("python", "httpx", "mozilla")  # beginnings of agents that get 403, as Zenodo does it
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news; anything else is a mistake of this file's."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*_)

    def close(self) -> None:
        """End the server and whatever it lets hang."""
        self.closing.set()
        self.shutdown()
        self.server_close()

    def add(
        self, record: str, name: str, data: bytes, md5: str | None = "right", license_id: str = "cc-by-4.0"
    ) -> Hosted:
        """Host a file in a record; what is returned can be made to misbehave."""
        self.licences[record] = {"id": license_id}
        return self.records.setdefault(record, {}).setdefault(name, Hosted(data, md5))

    def listing(self, record: str) -> bytes:
        """A record's metadata, in the form of Zenodo's."""
        files = []
        for name, file in self.records[record].items():
            size = len(file.data) if file.size_listed is None else file.size_listed
            files.append({"key": name, "size": size, "links": {"self": "http://169.254.0.1/elsewhere"}})
            if file.md5:
                files[-1]["checksum"] = f"md5:{hashlib.md5(file.data).hexdigest() if file.md5 == 'right' else 'f' * 32}"
        return json.dumps({"files": files, "metadata": {"license": self.licences[record], "title": "Sets"}}).encode()

    def downloads(self) -> list[str]:
        """The Range, or "", of each time that a file was asked for, redirects aside."""
        return [span for method, path, span, _ in self.asked if method == "GET" and path.startswith("/record/")]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def answer(
        self, status: int, body: bytes = b"", length: int | None = None, headers: Mapping[str, str] = {}
    ) -> None:  # noqa: B006
        self.send_response(status)
        if status in (429, 503) and self.server.retry_after:
            headers = {"Retry-After": self.server.retry_after, **headers}
        for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    def do_GET(self) -> None:
        try:
            self.reply()
        except OSError:  # the client hung up
            self.close_connection = True

    do_HEAD = do_GET

    def reply(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.agents.add(agent := self.headers.get("User-Agent", ""))
        server.asked.append(
            (self.command, self.path, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
        )
        if not agent or agent.lower().startswith(server.refuses):
            return self.answer(403, b"the User-Agent does not name its client")
        if server.busy:
            server.busy -= 1
            return self.answer(429)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "records"]:
            instead = server.listings.get(parts[2])
            if isinstance(instead, int) or parts[2] not in server.records:
                return self.answer(instead or 404, b'{"message": "no"}')
            return self.answer(200, server.listing(parts[2]) if instead is None else instead)
        hops = int(parts.pop(0).removeprefix("hop")) if parts[0].startswith("hop") else 0
        file = server.records.get(parts[1], {}).get(parts[3])
        if file is None:
            return self.answer(404)
        status = file.head_status or file.status if self.command == "HEAD" else file.status
        if status:
            return self.answer(status)
        if hops < file.redirects:
            return self.answer(302, headers={"Location": f"/hop{hops + 1}/{'/'.join(parts)}"})
        self.send_file(file)

    def send_file(self, file: Hosted) -> None:
        server, data, start = self.server, file.data if file.sent is None else file.sent, 0
        if file.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                return self.answer(416, headers={"Content-Range": f"bytes */{len(data)}"})
        if file.endless:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for _ in range(ENDLESS // 2**16 if self.command == "GET" else 0):
                self.wfile.write(bytes(2**16))
                server.endless_sent += 2**16
            return None
        rest, status = data[start:], 206 if start else 200
        length = len(rest) if file.length is None else file.length
        more = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if self.command == "GET" and (file.drops or file.stalls):
            self.answer(status, rest[: len(rest) // 2], length, more)
            self.close_connection = True
            if file.drops:
                file.drops -= 1
            else:
                file.stalls -= 1
                server.closing.wait(5)
            return None
        if file.pause and self.command == "GET":
            self.answer(status, b"", length, more)
            for place in range(0, len(rest), 4096):
                self.wfile.write(rest[place : place + 4096])
                time.sleep(file.pause)
            return None
        self.answer(status, rest[:length], length, more)
        self.close_connection = length != len(rest)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """A member's header; `size` may be more than the bytes that follow."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def tar(files: Mapping[str, bytes], members: Iterable[tarfile.TarInfo] = (), form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of {path: bytes} and then of bare members, whatever they claim."""
    blocks = [member(name, size=len(data)).tobuf(form) + data + bytes(-len(data) % 512) for name, data in files.items()]
    return b"".join([*blocks, *(info.tobuf(form) for info in members), bytes(1024)])


def tar_gz(
    files: Mapping[str, bytes], members: Iterable[tarfile.TarInfo] = (), form: int = tarfile.PAX_FORMAT
) -> bytes:
    """The same, compressed."""
    return gzip.compress(tar(files, members, form), mtime=0)
