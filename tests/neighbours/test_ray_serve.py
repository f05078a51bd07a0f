"""The server on a local cluster of Ray with two replicas, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llamacpu

ray: Any = pytest.importorskip("ray")
httpx: Any = pytest.importorskip("httpx")
pytest.importorskip("ray.serve")

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
REPLICA = "x-llamacpu-replica"


@pytest.fixture(scope="module")
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example, on a cluster of its own."""
    log = tmp_path_factory.mktemp("example") / "log"
    # How often replicas and fronts tell of their load; ten seconds otherwise.
    for who in ("REPLICA", "HANDLE"):
        monkeypatch.setenv(f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
    context = ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
    try:
        yield from example(context.address_info["address"], log)
    finally:
        # A second try begins with a cluster of its own, too.
        ray.shutdown()


def example(cluster: str, log: Path) -> Iterator[str]:
    """Run the example until the tests are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples" / "ray_serve.py"), str(DEMO), "--replicas", "2"]
    command += ["--port", str(port)]
    environment = os.environ | {"RAY_ADDRESS": cluster}
    with (
        log.open("wb") as written,
        subprocess.Popen(command, env=environment, stdout=written, stderr=written) as running,
    ):
        try:
            # What the workers log comes out of it as well.
            found: list[str] = []
            while not found:
                assert running.poll() is None, log.read_text()
                found = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("http://")]
                time.sleep(0.1)
            yield found[0]
        finally:
            running.send_signal(signal.SIGTERM)
    assert running.returncode == 0, log.read_text()


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with httpx.Client(base_url=url, timeout=240) as found:
        yield found


def asked(words: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}], "max_tokens": 2, "temperature": 0, **fields}


def metric(client: Any, replica: str, name: str) -> float:
    """A number of one replica, whoever the router would choose for its metrics."""
    for _ in range(1000):
        found = client.get("/metrics")
        if found.headers[REPLICA] == replica:
            return sum(float(line.split()[-1]) for line in found.text.splitlines() if line.startswith(name))
    raise AssertionError(f"{replica} never answered")


def until(true: Callable[[], bool]) -> None:
    for _ in range(1200):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("waited for two minutes")


def actor(replica: str) -> Any:
    found = [each for each in ray.util.list_named_actors(all_namespaces=True) if each["name"].endswith(replica)]
    return ray.get_actor(found[0]["name"], namespace=found[0]["namespace"])


def test_turns_of_a_conversation_meet_and_others_spread(client: Any) -> None:
    def conversation(number: int) -> set[str]:
        begun = asked(f"Number {number}: What can you do?")
        first = client.post("/v1/chat/completions", json=begun)
        answer = first.json()["choices"][0]["message"]
        assert first.status_code == 200
        said = {"role": "user", "content": "And what else?"}
        second = client.post("/v1/chat/completions", json=begun | {"messages": [*begun["messages"], answer, said]})
        # All of the first question, and more than what every conversation begins with.
        assert second.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 15
        assert second.headers[REPLICA] == first.headers[REPLICA]
        return {first.headers[REPLICA]}

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(conversation, range(20)))
    assert len(set.union(*found)) == 2


def test_streams_of_all_apis_pass(client: Any) -> None:
    whole = client.post("/v1/chat/completions", json=asked("Tell me a story.", max_tokens=12)).json()
    content = whole["choices"][0]["message"]["content"]
    with client.stream(
        "POST", "/v1/chat/completions", json=asked("Tell me a story.", max_tokens=12, stream=True)
    ) as to:
        lines = [line.removeprefix("data: ") for line in to.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]) == content
    options = {"num_predict": 12, "temperature": 0}
    body = {"model": "demo", "messages": asked("Tell me a story.")["messages"], "options": options}
    with client.stream("POST", "/api/chat", json=body) as to:
        pieces = [json.loads(line) for line in to.iter_lines()]
    assert "".join(piece["message"]["content"] for piece in pieces) == content
    assert pieces[-1]["done"]
    assert client.get("/", headers={"accept": "text/html"}).status_code == 200


def test_who_may_ask_is_checked_before_anything_is_forwarded(client: Any) -> None:
    refused = client.get("/v1/models", headers={"host": "evil.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "host_not_allowed")
    assert REPLICA not in refused.headers
    assert client.post("/v1/chat/completions", json={"messages": 1}).json()["error"]["param"] == "messages"
    assert client.get("/nothing").status_code == 404


def test_a_client_that_goes_away_is_heard_of_in_the_replica(client: Any) -> None:
    body = asked("Go on and on.", max_tokens=900, n=16, stream=True, ignore_eos=True)
    with client.stream("POST", "/v1/chat/completions", json=body) as stream:
        replica = stream.headers[REPLICA]
        next(stream.iter_lines())
    until(lambda: metric(client, replica, "llamacpu_requests_running") == 0)
    assert metric(client, replica, "llamacpu_requests_cancelled_total") > 0


def test_a_killed_replica_loses_no_request(client: Any) -> None:
    body = asked("Go on and on.", max_tokens=900, n=16, stream=True, ignore_eos=True)
    with ThreadPoolExecutor(8) as threads, client.stream("POST", "/v1/chat/completions", json=body) as stream:
        replica = stream.headers[REPLICA]
        lines = stream.iter_lines()
        next(lines)
        # The same beginning, so the same replica: what it has not answered yet is answered by the other one.
        waiting = [
            threads.submit(client.post, "/v1/chat/completions", json=asked("Go on and on.", max_tokens=number))
            for number in range(100, 108)
        ]
        ray.kill(actor(replica))
        last = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")][-1]
        assert last["error"]["code"] == "replica_lost"
        answers = [each.result() for each in waiting]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert [answer.json()["usage"]["completion_tokens"] <= 107 for answer in answers] == [True] * 8
    others = [client.post("/v1/chat/completions", json=asked(f"{number} and on.")) for number in range(8)]
    assert {answer.status_code for answer in others} == {200}
    assert replica not in {answer.headers[REPLICA] for answer in others}


def test_more_replicas_for_more_requests(client: Any) -> None:
    from ray import serve

    from llamacpu.ray import application

    # The two replicas of the example would leave no core.
    serve.delete("llamacpu")
    fast = {"upscale_delay_s": 0.1, "look_back_period_s": 0.2}
    scaled = application(DEMO, replicas=(1, 2), target_ongoing_requests=1, autoscaling=fast)
    serve.run(scaled, name="scaled")
    replicas = lambda: serve.status().applications["scaled"].deployments["LlamacpuReplica"].replica_states  # noqa: E731
    assert replicas()["RUNNING"] == 1
    body = asked("Go on and on.", max_tokens=200, n=8, ignore_eos=True)
    done = False

    def load() -> None:
        while not done:
            client.post("/v1/chat/completions", json=body)

    with ThreadPoolExecutor(4) as threads:
        loading = [threads.submit(load) for _ in range(4)]
        try:
            until(lambda: replicas().get("RUNNING", 0) == 2)
        finally:
            done = True
    for each in loading:
        each.result()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"replicas": (2, 1)}, "replicas is"),
        ({"num_cpus": 64}, "num_cpus is 64, and the largest machine"),
        ({"kv_memory": 1 << 50}, "GB of memory"),
        ({"target_ongoing_requests": 0}, "target_ongoing_requests is 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"aliases": {"a": "b"}}, "the alias a means b"),
    ],
)
def test_senseless_settings_are_refused_in_words(url: str, arguments: dict[str, Any], words: str) -> None:
    from llamacpu.ray import application

    with pytest.raises(ValueError, match=words):
        application(DEMO, **arguments)
