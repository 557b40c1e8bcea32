"""A model hub on loopback: enough of the Hugging Face hub's protocol for its real client, over real HTTP.

Spoken: model information, the tree of files, and `resolve` with commit, etag and size headers, a redirect to a
store for large files (LFS), ranges, gated and missing repositories, and lines that break off.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """Files by path. `gated`: only the token "accepted" may read them. `breaks`: how often a store download breaks off."""

    files: dict[str, bytes]
    gated: bool = False
    disabled: bool = False
    closed: bool = False  # 401 without a token, 403 with one, and no word of what it is
    breaks: int = 0
    spoils: int = 0  # how often the largest file has its right length and wrong bytes
    stalls: int = 0  # how often a store download sends half and then nothing more, the line open
    trickles: bool = False  # store downloads come byte by byte

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for path, data in sorted(self.files.items()):
            digest.update(path.encode() + hashlib.sha1(data).digest())
        return digest.hexdigest()


@dataclass
class Hub:
    """The repositories by id, and every request that was answered: (method, path, range, bytes sent)."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None, int]] = field(default_factory=list)
    broken: bool = False  # every answer is 503
    portal: tuple[int, str] | None = None  # what something between answers to every request: status and body
    moved: dict[str, str] = field(default_factory=dict)  # a model's former id and its id
    busy: int = 0  # how many requests are answered 429
    retry_after: int = 0  # seconds, which such an answer asks for
    slow: float = 0  # seconds before every answer
    patience: float = 30  # seconds that a stalled or trickling line stays open at most

    def add(self, hub_id: str, folder: Path, **options) -> Repo:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        self.repos[hub_id] = Repo(files, **options)
        return self.repos[hub_id]

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.store_url = f"http://localhost:{self.server.server_port}/store"  # another host, as the hub's store is
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self.server.shutdown()
        self.server.server_close()


def is_large(path: str) -> bool:
    return path.endswith(".safetensors") or path.endswith(".bin")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")]
        time.sleep(self.hub.slow)
        if self.hub.broken:
            return self.send(503, b"out of order")
        if self.hub.portal:
            return self.send(self.hub.portal[0], self.hub.portal[1].encode(), {"Content-Type": "text/html"})
        if self.hub.busy:
            self.hub.busy -= 1
            return self.send(429, b"slow down", {"Retry-After": str(self.hub.retry_after)})
        if parts[0] == "store":
            return self.store(parts[1], "/".join(parts[2:]))
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        hub_id, rest = "/".join(parts[:2]), parts[2:]
        if hub_id in self.hub.moved:
            return self.send(307, b"", {"Location": self.path.replace(hub_id, self.hub.moved[hub_id])})
        repo = self.hub.repos.get(hub_id)
        if repo is None:  # the hub tells an anonymous person 401, for it may be private
            return self.error(401, "RepoNotFound", "Repository not found")
        if repo.closed:
            return self.error(403 if self.headers.get("Authorization") else 401, None, "Not for you.")
        if repo.disabled:
            return self.error(403, None, "Access to this resource is disabled.")
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", repo.commit):
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api:
            return self.tree(repo) if rest[:1] == ["tree"] else self.info(hub_id, repo)
        if repo.gated and self.headers.get("Authorization") != "Bearer accepted":
            status = 403 if self.headers.get("Authorization") else 401
            return self.error(status, "GatedRepo", "Access to this model is restricted.")
        self.resolve(hub_id, repo, "/".join(rest[2:]))

    def info(self, hub_id: str, repo: Repo) -> None:
        siblings = [{"rfilename": p, "size": len(d), "blobId": _blob(d), **_lfs(p, d)} for p, d in repo.files.items()]
        about = {"_id": "0", "id": hub_id, "modelId": hub_id, "sha": repo.commit, "siblings": siblings, "tags": []}
        about |= {"private": False, "gated": "manual" if repo.gated else False, "disabled": False, "downloads": 0}
        self.send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def tree(self, repo: Repo) -> None:
        entries = [
            {"type": "file", "path": p, "size": len(d), "oid": _blob(d), **_lfs(p, d, key="oid")}
            for p, d in repo.files.items()
        ]
        self.send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def resolve(self, hub_id: str, repo: Repo, path: str) -> None:
        data = repo.files.get(path)
        headers = {"X-Repo-Commit": repo.commit}
        if data is None:
            return self.error(404, "EntryNotFound", "Entry not found", headers)
        if is_large(path):
            digest = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            headers["Location"] = f"{self.hub.store_url}/{digest}/{hub_id}"
            return self.send(302, b"", headers)
        self.send(200, data, headers | {"ETag": f'"{_blob(data)}"'})

    def store(self, digest: str, hub_id: str) -> None:
        repo = self.hub.repos[hub_id]
        data = next(d for d in repo.files.values() if hashlib.sha256(d).hexdigest() == digest)
        wanted, status, headers = (self.headers.get("Range"), 200, {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})
        start = 0
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first or 0), int(last) if last else len(data) - 1
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            status, data = 206, data[start : end + 1]
        if self.command == "GET" and repo.breaks and len(data) > 1000:
            repo.breaks -= 1
            # The first time half of it arrives, then nothing.
            return self.send(status, data, headers, only=len(data) // 2 if not start else 0)
        if self.command == "GET" and len(data) > 1000 and (repo.stalls or repo.trickles):
            repo.stalls = max(0, repo.stalls - 1)
            return self.creep(
                data, headers, status, 0 if repo.trickles or start else len(data) // 2, step=int(repo.trickles)
            )
        if self.command == "GET" and repo.spoils and len(data) == max(map(len, repo.files.values())):
            repo.spoils -= 1
            data = data[:-8] + bytes(8)
        self.send(status, data, headers)

    def creep(self, data: bytes, headers: dict, status: int, first: int, step: int) -> None:
        """`first` bytes at once, then `step` bytes every tenth of a second, until the client goes or patience ends."""
        end = time.monotonic() + self.hub.patience
        self.send(status, data, headers, only=first)
        with suppress(OSError):  # the client went
            while time.monotonic() < end:
                time.sleep(0.1)
                self.wfile.write(data[first : first + step])
                self.wfile.flush()
                first += step

    def error(self, status: int, code: str | None, words: str, headers=None) -> None:
        headers = {"X-Error-Message": words, **(headers or {})}
        if code:
            headers["X-Error-Code"] = code
        self.send(status, json.dumps({"error": words}).encode(), headers)

    def send(self, status: int, body: bytes, headers=None, only: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body[:only]
        self.hub.requests.append((self.command, self.path, self.headers.get("Range"), len(sent)))
        self.wfile.write(sent)
        if only is not None:
            self.wfile.flush()
            self.close_connection = True  # fewer bytes than promised: the line broke


def _blob(data: bytes) -> str:
    """The name that git gives to these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lfs(path: str, data: bytes, key: str = "sha256") -> dict:
    if not is_large(path):
        return {}
    return {"lfs": {key: hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
