"""A server for the tests of the chat page: its files, and an API that answers as the last message wants it to.

    python tests/page_server.py [PORT]

What a message begins with chooses the answer: see `ANSWERS`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "python" / "llamacpu" / "server" / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}
TYPES |= {".svg": "image/svg+xml", ".md": "text/markdown"}
CONTEXT = 4096

RICH = """\
A **paged** cache keeps keys and values in blocks of equal size:

1. A session asks for a page when its last one is full.
2. Pages are *shared* until one of two sessions writes.

```python
def fork(pages: list[Page]) -> list[Page]:
    \"\"\"Share every page; whoever writes copies.\"\"\"
    for page in pages:
        page.users += 1  # reference count
    return pages
```

| part | bytes for 1000 tokens |
|---|--:|
| keys | 16384 |
| values | 16384 |

> Nothing is copied before it has to be.

See [the paper](https://arxiv.org/abs/2309.06180), and `Session.fork()`.
"""

HOSTILE = """\
<script>window.harmed = "script"</script>
<img src="x" onerror="window.harmed = 'img'"> <svg onload="window.harmed = 'svg'"></svg>
<iframe srcdoc="<script>parent.harmed = 'iframe'</script>"></iframe>

[click me](javascript:window.harmed='link') [and me](JaVaScRiPt:window.harmed='case')
[data](data:text/html,<script>window.harmed='data'</script>) ![picture](https://example.org/spy.png "x")
[vb](vbscript:x) <a href="javascript:window.harmed='a'">raw</a> [fine](https://example.org/) [near](/v1/models)

<style>body { display: none }</style><form action="https://example.org"><input name="key"></form>
<button class="primary" id="send" onclick="window.harmed='button'">Send</button> H<sub>2</sub>O

```"><script>window.harmed='fence'</script>
</code></pre><script>window.harmed = "code"</script><img src=x onerror="window.harmed='code'">
```

```html
<img src=x onerror="window.harmed='html'"><script>window.harmed = "html"</script>
```

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.harmed='mxss'&gt;">
"""


class Api(ThreadingHTTPServer):
    """The server, what it was asked, and how it behaves."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.asked: list[dict[str, Any]] = []
        self.key: str | None = None
        self.models = ["llama-3.2-1b-q4_k_m", "demo"]
        self.gone = threading.Event()
        """set when a client has left in the middle of an answer"""
        self.delay = 0.004
        self.pause_after: int | None = None
        """how many pieces of an answer come before it waits for `go`"""
        self.go = threading.Event()
        self.connections: set[Any] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def stop(self) -> None:
        """End as a process does: with its connections."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def error(self, status: int, message: str, **headers: str) -> None:
        error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        self.answer(status, json.dumps(error).encode(), **headers)

    def allowed(self) -> bool:
        if self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        self.error(401, "Incorrect API key provided")
        return False

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/v1/models":
            if self.allowed():
                entries = [{"id": name, "object": "model", "meta": {"n_ctx": CONTEXT}} for name in self.server.models]
                self.answer(200, json.dumps({"object": "list", "data": entries}).encode())
            return
        file = PAGE / (path.lstrip("/") or "index.html")
        if not file.is_file():
            return self.error(404, "Not Found")
        self.answer(200, file.read_bytes(), TYPES[file.suffix] + "; charset=utf-8", Cache_Control="no-store")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        self.server.asked.append(body)
        messages = body["messages"]
        continues = messages[-1]["role"] == "assistant"
        asked = next(said(m["content"]) for m in reversed(messages) if m["role"] == "user")
        word = (asked.split() or ["image"])[0].strip(",.").lower()
        if word == "busy":
            return self.error(503, "The queue is full", Retry_After="7")
        if word == "refuse":
            return self.error(400, "messages: the prompt has 5000 tokens, the context 4096")
        if word == "page":
            return self.answer(502, b"<html><h1>Bad Gateway</h1></html>", "text/html")
        self.stream(body, word, continues)

    def stream(self, body: dict[str, Any], word: str, continues: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if word == "wait" and len(self.server.asked) == 1:
                time.sleep(30)
            pieces = 0
            self.chunk({"role": "assistant", "content": ""})
            for progress in PROGRESS.get(word, ()):
                self.chunk({"content": ""}, prompt_progress={"total": 400, "cache": 8, "time_ms": 1, **progress})
                self.server.go.wait(60)
                self.server.go.clear()
            for kind, text in ANSWERS.get(word, plain)(continues, self.server.asked):
                self.chunk({kind: text})
                pieces += 1
                time.sleep(self.server.delay)
                if pieces == self.server.pause_after:
                    self.server.go.wait(60)
            if word == "cut" and not continues:
                # The stream ends in the middle of a chunk, when the rest has long been read.
                time.sleep(0.3)
                self.wfile.write(b"40\r\ndata: {")
                self.close_connection = True
                return
            if word == "fault":
                self.raw(json.dumps({"error": {"message": "the model file was changed while it was used"}}))
            reason = "length" if word in ("short", "tiny") and not continues else "stop"
            self.chunk({}, reason, timings={"tokens_per_second": 41.7})
            prompt = sum(len(said(m["content"])) for m in body["messages"]) // 4 + 8
            usage = {"prompt_tokens": prompt, "completion_tokens": pieces, "total_tokens": prompt + pieces}
            usage |= {"prompt_tokens_details": {"cached_tokens": prompt // 2}}
            self.raw(json.dumps({"choices": [], "usage": usage}))
            self.raw("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.gone.set()
            self.close_connection = True

    def chunk(self, delta: dict[str, str], reason: str | None = None, **more: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        self.raw(json.dumps({"object": "chat.completion.chunk", "choices": [choice], **more}, ensure_ascii=False))

    def raw(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.wfile.flush()


Pieces = Iterator[tuple[str, str]]


def said(content: Any) -> str:
    """The text of a message's content, which may have images beside it."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def words(text: str) -> Pieces:
    """A text as tokens of a few characters, so that marks of Markdown and characters are cut anywhere."""
    yield from (("content", text[at : at + 4]) for at in range(0, len(text), 4))


def plain(continues: bool, asked: list[Any]) -> Pieces:
    yield from words(f"Answer number {len(asked)}.")


def rich(continues: bool, asked: list[Any]) -> Pieces:
    yield from words(RICH)


def hostile(continues: bool, asked: list[Any]) -> Pieces:
    yield from words(HOSTILE)


def endless(continues: bool, asked: list[Any]) -> Pieces:
    number = 0
    while number < 20_000:
        number += 1
        yield "content", f"{number} "


def think(continues: bool, asked: list[Any]) -> Pieces:
    for piece in ("First **I** ", "count the letters.\n\n", "Then I ", "answer."):
        yield "reasoning_content", piece
        time.sleep(0.2)
    yield from words("There are three.")


def short(continues: bool, asked: list[Any]) -> Pieces:
    yield from words(" and this is the rest." if continues else "This is the beginning")


def long(continues: bool, asked: list[Any]) -> Pieces:
    """An answer of more than a hundred blocks, with code: 5 pieces to a part."""
    for number in range(60):
        text = f"### Part {number}\n\nSome words about *part* {number}.\n\n```python\nvalue = {number}\n```\n\n"
        yield from (("content", text[at : at + 16]) for at in range(0, len(text), 16))


PROGRESS: dict[str, list[dict[str, Any]]] = {
    "progress": [{"processed": 8}, {"processed": 8, "pictures": {"total": 2, "encoded": 1.25}}, {"processed": 391}]
}
"""What is told before an answer; each waits for `go`."""

ANSWERS = {
    "rich": rich, "hostile": hostile, "endless": endless, "think": think, "short": short, "cut": short, "long": long,
    "fault": short, "how": rich, "count": think,
}  # fmt: skip


if __name__ == "__main__":
    server = Api(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    server.serve_forever()
