"""A server on this machine that speaks the protocols of Ollama's registry and of the Hugging Face Hub, with faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llamacpu.store import download as downloads
from llamacpu.store import transfer

TOKEN = "hf_secret"


@dataclass
class Faults:
    """What goes wrong. Counts are how often it does before it goes well."""

    cut: int = 0
    """answers that break off in the middle"""
    cut_always_after: int | None = None
    """every answer with a body longer than this breaks off after so many bytes"""
    status: dict[str, list[int]] = field(default_factory=dict)
    """beginning of a path -> the errors that it answers with, one after the other; the last one stays if negative"""
    no_ranges: bool = False
    slow: float = 0.0
    """seconds before every 64 kB"""
    hold: threading.Event | None = None
    """the last bytes of a file come after this, so that no download of it ends before"""
    wrong_bytes: bool = False
    wrong_total: bool = False
    redirect: bool = False
    """bodies come from another name of this host"""
    headers: dict[str, str] = field(default_factory=dict)
    """of answers that are errors"""


class ModelHub(ThreadingHTTPServer):
    """The server. blobs: digits -> bytes; manifests: path -> bytes; repositories: owner/name -> file -> bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.token: str | None = None
        """what the registry wants to be shown, and /token gives"""
        self.faults = Faults()
        self.requests: list[tuple[str, str | None, str | None]] = []
        """(path, range, authorization)"""
        self.sent = 0
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of both protocols."""
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are expected."""

    def put_model(self, name: str, gguf: bytes, **others: bytes) -> None:
        """A model of the registry: `name` is model:tag."""
        kind = "application/vnd.ollama.image."
        layers = [{"mediaType": kind + key, **self.blob(data)} for key, data in {"model": gguf, **others}.items()]
        model, _, tag = name.partition(":")
        self.put_manifest(f"library/{model}/manifests/{tag}", {"layers": layers, "config": self.blob(b"{}")})

    def put_manifest(self, path: str, document: Any) -> None:
        """A manifest as it is."""
        self.manifests[path] = json.dumps(document).encode()

    def blob(self, data: bytes) -> dict[str, Any]:
        """Keep a blob; what a manifest says of it."""
        digits = hashlib.sha256(data).hexdigest()
        self.blobs[digits] = data
        return {"digest": f"sha256:{digits}", "size": len(data)}

    def bodies(self) -> list[str]:
        """Paths of requests for large files."""
        return [path for path, _, _ in self.requests if "/blobs/" in path or "/resolve/" in path or "/cdn/" in path]


def use_alone(server: ModelHub, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the store know this server alone, with nothing downloaded yet, small ranges and short waits."""
    for name in ("LLAMACPU_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "LLAMACPU_FOLDERS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "OLLAMA_MODELS", "HF_HOME"):
        monkeypatch.setenv(name, str(folder / "home"))
    monkeypatch.setenv("LLAMACPU_MODELS", str(folder / "own"))
    monkeypatch.setenv("LLAMACPU_REGISTRY", server.url)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(downloads, "CHUNK", 1 << 16)
    monkeypatch.setattr(transfer, "DELAY", 0.01)
    monkeypatch.setattr(transfer, "LONGEST_DELAY", 0.05)


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        hub, faults = self.server, self.server.faults
        hub.requests.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        for start, errors in faults.status.items():
            if self.path.startswith(start) and errors:
                status = errors[0]
                if status > 0:
                    errors.pop(0)
                return self._error(abs(status))
        path = self.path.partition("?")[0]
        if path == "/token":
            return self._body(json.dumps({"token": hub.token}).encode(), plain=True)
        if path.startswith("/v2/"):
            if hub.token is not None and self.headers["Authorization"] != f"Bearer {hub.token}":
                challenge = f'Bearer realm="{hub.url}/token",service="registry",scope="repository:tiny:pull"'
                return self._error(401, {"WWW-Authenticate": challenge})
            return self._registry(path[4:])
        if path.startswith("/api/models/"):
            return self._tree(path)
        if path.startswith("/cdn/"):
            found = hub.blobs.get(path[5:])
            return self._error(404) if found is None else self._body(found)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.*)", path)
        if match and match[2] in hub.repositories.get(match[1], {}):
            if match[1] in hub.gated and self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self._error(401, {"X-Error-Code": "GatedRepo"})
            return self._moved(hub.repositories[match[1]][match[2]])
        return self._error(404)

    def do_CONNECT(self) -> None:
        """No tunnels."""
        self._error(405)

    def _registry(self, path: str) -> None:
        if path in self.server.manifests:
            return self._body(self.server.manifests[path], plain=True)
        data = self.server.blobs.get(path.rpartition("sha256:")[2])
        return self._error(404) if data is None else self._moved(data)

    def _tree(self, path: str) -> None:
        name = path.removeprefix("/api/models/").partition("/tree/")[0]
        files = self.server.repositories.get(name)
        if files is None:
            return self._error(401, {"X-Error-Code": "RepoNotFound"})
        rows: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "size": 0}]
        for file, data in files.items():
            row: dict[str, Any] = {"type": "file", "path": file, "size": len(data)}
            if file.endswith(".gguf"):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
            rows.append(row)
        return self._body(json.dumps(rows).encode(), plain=True)

    def _moved(self, data: bytes) -> None:
        if not self.server.faults.redirect:
            return self._body(data)
        digits = hashlib.sha256(data).hexdigest()
        self.server.blobs[digits] = data
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn/{digits}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _body(self, data: bytes, plain: bool = False) -> None:
        faults = self.server.faults
        if faults.wrong_bytes and not plain:
            data = data[:-1] + bytes([data[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        part, total = data, len(data) + (1 if faults.wrong_total else 0)
        if asked and not faults.no_ranges:
            part = data[int(asked[1]) : int(asked[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if faults.hold is not None and not plain and asked and 0 < int(asked[1]) <= len(data) - 1 <= int(asked[2]):
            faults.hold.wait()
        end = len(part)
        if not plain and faults.cut > 0:
            faults.cut -= 1
            end //= 2
        if not plain and faults.cut_always_after is not None:
            end = min(end, faults.cut_always_after)
        for place in range(0, end, 1 << 16):
            if faults.slow and not plain:
                time.sleep(faults.slow)
            self.wfile.write(part[place : min(place + (1 << 16), end)])
            self.server.sent += min(1 << 16, end - place)
        if end < len(part):
            self.close_connection = True

    def _error(self, status: int, headers: dict[str, str] | None = None) -> None:
        body = b'{"error": "told by the server"}'
        self.send_response(status)
        for key, value in {**self.server.faults.headers, **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
