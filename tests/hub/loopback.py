"""A server on the loopback device that speaks the Hugging Face Hub's protocol, and plain HTTP with faults on demand."""

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class Fault:
    """What goes wrong with one answer."""

    status: int | None = None  # answer with this status instead
    cut_at: int | None = None  # close the connection after so many bytes of the body
    stall_at: int | None = None  # fall silent after so many bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    headers: Message


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    commit: str = COMMIT


class Loopback:
    """Two servers with one content: the Hub, and its content delivery network (another origin, as in reality)."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.files: dict[str, bytes] = {}  # path -> content, for plain downloads
        self.etags: dict[str, str] = {}  # path -> ETag, where it is not the content's digest
        self.types: dict[str, str] = {}  # path -> Content-Type
        self.substitutes: dict[str, bytes] = {}  # digest -> what the network really delivers for it
        self.blobs: dict[str, bytes] = {}  # what was uploaded
        self.faults: dict[str, list[Fault]] = defaultdict(list)  # part of a path -> faults of the next answers
        self.requests: list[Request] = []
        self.released = threading.Event()  # ends the silence of stalled answers
        self._servers = []
        for _ in range(2):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
            server.daemon_threads = True
            server.loopback = self
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers.append(server)
        self.url, self.delivery_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def close(self) -> None:
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def made(self, method: str, part: str = "") -> list[Request]:
        """Requests so far of one method whose path contains ``part``."""
        return [request for request in self.requests if request.method == method and part in request.path]

    def fault(self, part: str) -> Fault:
        for key, faults in self.faults.items():
            if key in part and faults:
                return faults.pop(0)
        return Fault()

    def blob(self, digest: str) -> bytes | None:
        if digest in self.substitutes:
            return self.substitutes[digest]
        contents = [content for repo in self.repositories.values() for content in repo.files.values()]
        return next((c for c in [*contents, *self.blobs.values()] if hashlib.sha256(c).hexdigest() == digest), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Loopback:
        return self.server.loopback

    def log_message(self, *_) -> None:
        return

    def __getattr__(self, name: str):
        # The base class calls do_GET, do_HEAD and so on; one method answers them all.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(Request(self.command, path, self.headers))
        self.problem = self.hub.fault(f"{self.command} {path}")
        if self.problem.status is not None:
            self.send(self.problem.status, b"", self.problem.headers)
        elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) is not None:
            self.resolve(*found.groups())
        elif path.startswith("/cdn/"):
            content = self.hub.blob(path.removeprefix("/cdn/"))
            self.send(404, b"") if content is None else self.deliver(content)
        elif path in self.hub.files:
            self.deliver(self.hub.files[path], path)
        elif path.startswith(("/api/", "/upload/")) or path.endswith("/objects/batch"):
            self.upload(path, body)
        else:
            self.send(404, b"")

    def resolve(self, name: str, revision: str, filename: str) -> None:
        repo = self.hub.repositories.get(name)
        authorised = "authorization" in self.headers
        if repo is None:
            self.send(404 if authorised else 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repo.gated:
            self.send(403 if authorised else 401, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", repo.commit):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif filename not in repo.files:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
        else:
            content, commit = repo.files[filename], {"X-Repo-Commit": repo.commit}
            if filename.endswith((".json", ".md", ".yaml")):
                oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                self.send(200, content, commit | {"ETag": f'"{oid}"'})
                return
            digest = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self.send(302, b"", commit | linked | {"Location": f"{self.hub.delivery_url}/cdn/{digest}"})

    def deliver(self, content: bytes, path: str = "") -> None:
        etag = self.hub.etags.get(path, f'"{hashlib.md5(content).hexdigest()}"')
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = self.hub.types.get(path, "application/octet-stream")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None or self.headers.get("If-Range", etag) != etag:
            self.send(200, content, headers)
        elif int(wanted[1]) >= len(content):
            self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            begin = int(wanted[1])
            span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.send(206, content[begin:], headers | {"Content-Range": span})

    def upload(self, path: str, body: bytes) -> None:
        if path.startswith("/upload/"):
            self.hub.blobs[path.removeprefix("/upload/")] = body
            self.send(200, b"")
        elif "authorization" not in self.headers:
            self.send(401, b"")
        elif path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.hub.repositories.setdefault(name, Repository())
            self.reply({"url": f"{self.hub.url}/{name}"})
        elif "/preupload/" in path:
            listed = [
                {"path": f["path"], "uploadMode": "lfs" if _is_large(f["path"]) else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.reply({"files": listed})
        elif path.endswith("/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            self.reply({"transfer": "basic", "objects": objects})
        elif (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)) is not None:
            repo = self.hub.repositories[found[1]]
            for line in body.splitlines():
                change = json.loads(line)
                if change["key"] == "file":
                    repo.files[change["value"]["path"]] = base64.b64decode(change["value"]["content"])
                elif change["key"] == "lfsFile":
                    repo.files[change["value"]["path"]] = self.hub.blobs[change["value"]["oid"]]
            url = f"{self.hub.url}/{found[1]}/commit/{repo.commit}"
            self.reply({"success": True, "commitOid": repo.commit, "commitUrl": url})
        elif (repo := self.hub.repositories.get(path.removeprefix("/api/models/"))) is not None:
            self.reply({"id": path.removeprefix("/api/models/"), "sha": repo.commit, "siblings": []})
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def reply(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = next((e for e in (self.problem.cut_at, self.problem.stall_at) if e is not None), None)
        self.wfile.write(body[:end])
        self.wfile.flush()
        if self.problem.stall_at is not None:
            self.hub.released.wait(30)
        if end is not None:
            self.close_connection = True


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))
