"""Adapters through the engine, the server, `Llama`, the command line and names with ADAPTER; caches never mix them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu import Engine, Llama, Model, Sampling
from llamacpu.cli.group import command_line
from llamacpu.gguf.file import GGUFFile
from llamacpu.llama.caches import LlamaDiskCache, LlamaRAMCache
from lora_files import random_pairs, write_adapter

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
PROMPT = "Once upon a time there was a little house by the sea, and in it lived a very old woman. " * 4
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapters of the demo model that change its answers, the last one an activated one."""
    folder = tmp_path_factory.mktemp("adapters")
    with GGUFFile(DEMO) as file:
        architecture = str(file.metadata["general.architecture"])
        shapes = {t.name: t.shape[::-1] for t in file.tensors if ".attn_" in t.name and len(t.shape) == 2}
    with Model(DEMO, threads=1) as model:
        invocation = model.tokenizer.encode(" old woman", add_special=False)
    found = []
    for seed in range(3):
        pairs = random_pairs(shapes, np.random.default_rng(seed), (2,), 4.0)
        more = {"adapter.alora.invocation_tokens": invocation} if seed == 2 else {}
        if seed == 0:
            more = {"adapter.lora.task_name": "tales"}
        found.append(write_adapter(folder / f"{seed}.gguf", pairs, architecture=architecture, more=more))
    return found


@pytest.fixture(scope="module")
def texts(lora: list[Path]) -> dict[str, str]:
    """The text with each choice of adapters, by a session alone."""
    with Model(DEMO, threads=1) as model:
        found = {}
        for name, chosen in choices_of(lora).items():
            session = model.session(lora=chosen)
            found[name] = "".join(llamacpu.generation.generate(session, PROMPT, max_tokens=12, sampling=GREEDY))
    assert len(set(found.values())) == len(found)
    return found


def choices_of(lora: list[Path]) -> dict[str, Any]:
    return {
        "none": [],
        "first": [lora[0]],
        "second": [lora[1]],
        "both": [(lora[0], 0.5), lora[1]],
        "activated": [lora[2]],
    }


def test_requests_with_different_adapters(lora: list[Path], texts: dict[str, str], tmp_path: Path) -> None:
    """In the same steps, with the prefix cache in memory and in a folder: each has its own text, again and again."""
    with Model(DEMO, threads=1) as model:
        for _ in range(2):  # the second time from files
            with Engine(model, prefix_cache_directory=tmp_path / "prefixes") as engine:
                for _ in range(2):  # the second time from memory
                    requests = {
                        name: engine.submit(PROMPT, max_tokens=12, sampling=GREEDY, lora=chosen)
                        for name, chosen in choices_of(lora).items()
                    }
                    assert {name: request.read().content for name, request in requests.items()} == texts
                assert engine.statistics.prefix_hits >= len(texts)
        assert engine.statistics.prefix_disk_hits > 0


def test_defaults_of_a_model(lora: list[Path], texts: dict[str, str]) -> None:
    with Model(DEMO, threads=1, lora=[lora[0]]) as model, Engine(model, prepare=False) as engine:
        assert engine.submit(PROMPT, max_tokens=12, sampling=GREEDY).read().content == texts["first"]
        assert engine.submit(PROMPT, max_tokens=12, sampling=GREEDY, lora=[]).read().content == texts["none"]
        model.set_adapters([lora[1]])
        assert engine.submit(PROMPT, max_tokens=12, sampling=GREEDY).read().content == texts["second"]
        assert "".join(model.generate(PROMPT, max_tokens=12, sampling=GREEDY)) == texts["second"]
        vectors = [model.embed("a house", normalize=True)]
        model.set_adapters()
        vectors.append(model.embed("a house", normalize=True))
        assert not np.array_equal(*vectors)


def test_llama_and_its_caches(lora: list[Path], texts: dict[str, str], tmp_path: Path) -> None:
    for cache in (LlamaRAMCache(), LlamaDiskCache(tmp_path / "states")):
        for _ in range(2):
            for name, given in (("none", {}), ("first", {"lora_path": str(lora[0])})):
                llm = Llama(str(DEMO), n_ctx=512, n_threads=1, verbose=False, **given)
                llm.set_cache(cache)
                answer: Any = llm(PROMPT, max_tokens=12, temperature=0)
                assert answer["choices"][0]["text"] == texts[name], name
                llm.close()
    half = Llama(str(DEMO), n_ctx=512, n_threads=1, lora_path=str(lora[0]), lora_scale=0.0, lora_base="none.gguf")
    zero: Any = half(PROMPT, max_tokens=12, temperature=0)
    assert zero["choices"][0]["text"] == texts["none"]
    assert (half.lora_path, half.lora_scale) == (str(lora[0]), 0.0)


def test_command_line(lora: list[Path], texts: dict[str, str], tmp_path: Path) -> None:
    def run(*more: object) -> Any:
        given = ["run", str(DEMO), "--raw", "-n", "12", "--temperature", "0", *map(str, more), PROMPT]
        return CliRunner().invoke(command_line, given)

    assert run().stdout.strip() == texts["none"].strip()
    assert run("--lora", lora[0]).stdout.strip() == texts["first"].strip()
    assert run("--lora", f"{lora[0]}:0.5", "--lora", lora[1]).stdout.strip() == texts["both"].strip()
    assert run("--lora", f"{lora[0]}:0").stdout.strip() == texts["none"].strip()
    missing = run("--lora", tmp_path / "missing.gguf:0.5")
    assert missing.exit_code == 1
    assert "missing.gguf: no such file" in missing.stderr
    assert run("--control-vector", "a.gguf:1:5-2").exit_code == 2
    bench = CliRunner().invoke(
        command_line,
        ["bench", str(DEMO), "--prompt-tokens", "4", "--generate-tokens", "2", "--repeat", "1", "--lora", str(lora[0])],
    )
    assert bench.exit_code == 0, bench.output
    vectors = {
        CliRunner().invoke(command_line, ["embed", str(DEMO), "a house", *more]).stdout
        for more in ([], ["--lora", str(lora[0])], ["--lora", f"{lora[0]}:0"])
    }
    assert len(vectors) == 2


def test_a_name_with_an_adapter(
    lora: list[Path], texts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "store"))
    (tmp_path / "Modelfile").write_text(f"FROM {DEMO}\nADAPTER {lora[0]}\n")
    made = CliRunner().invoke(command_line, ["create", "tales", "-f", str(tmp_path / "Modelfile")])
    assert made.exit_code == 0, made.output
    with Model("tales", threads=1) as model:
        assert "".join(model.generate(PROMPT, max_tokens=12, sampling=GREEDY)) == texts["first"]
    with Model("tales", threads=1, lora=[]) as model:
        assert "".join(model.generate(PROMPT, max_tokens=12, sampling=GREEDY)) == texts["none"]
    shown = CliRunner().invoke(command_line, ["show", "tales", "--modelfile"])
    assert f"ADAPTER {lora[0]}" in shown.stdout
    (tmp_path / "Modelfile").write_text(f"FROM {DEMO}\nADAPTER {DEMO}\n")
    wrong = CliRunner().invoke(command_line, ["create", "wrong", "-f", str(tmp_path / "Modelfile")])
    assert wrong.exit_code == 1
    assert "no LoRA adapter" in wrong.stderr


def test_server(lora: list[Path], texts: dict[str, str]) -> None:
    httpx = pytest.importorskip("httpx")
    started = [(lora[0], 1.0), (lora[1], 0.0)]
    with llamacpu.serve(DEMO, threads=1, lora=started) as url:

        def complete(path: str = "/completion", **more: Any) -> Any:
            body = {"prompt": PROMPT, "n_predict": 12, "max_tokens": 12, "temperature": 0, **more}
            return httpx.post(url + path, json=body, timeout=60)

        rows = httpx.get(url + "/lora-adapters").json()
        assert [(row["id"], row["scale"], row["task_name"]) for row in rows] == [(0, 1.0, "tales"), (1, 0.0, "")]
        assert rows[0]["path"] == str(lora[0])
        assert complete().json()["content"] == texts["first"]
        assert complete(lora=[]).json()["content"] == texts["none"]
        assert complete(lora=[{"id": 1, "scale": 1}]).json()["content"] == texts["second"]
        both = [{"id": 1, "scale": 1.0}, {"id": 0, "scale": 0.5}]
        assert complete(lora=both).json()["content"] == texts["both"]
        assert complete("/v1/completions", lora=both).json()["choices"][0]["text"] == texts["both"]
        assert httpx.post(url + "/lora-adapters", json=[{"id": 1, "scale": 1.0}]).json() == {"success": True}
        assert [row["scale"] for row in httpx.get(url + "/lora-adapters").json()] == [0.0, 1.0]
        assert complete().json()["content"] == texts["second"]
        for wrong in ([{"id": 2, "scale": 1.0}], [{"id": -1, "scale": 1.0}], [{"id": 0}], {"id": 0, "scale": 1.0}):
            assert httpx.post(url + "/lora-adapters", json=wrong).status_code == 400
            assert complete(lora=wrong).status_code == 400
        assert httpx.post(url + "/lora-adapters", content=b"[{").status_code == 400
        assert complete().json()["content"] == texts["second"]
