"""The demo model of the package: what it answers, and the generator and quantizer that it was made with."""

from __future__ import annotations

import importlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import gguf
import numpy as np
import pytest

import llamacpu
from llamacpu.chat import Chat
from llamacpu.generation import generate
from llamacpu.sampling import Sampling

pytestmark = pytest.mark.instruction_set

TOOLS = Path(__file__).resolve().parent.parent / "tools" / "demo"
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")

# What ordinary people try first, and what the answer must speak of.
PROMPTS = {
    "Hello": "Hello|Hi there",
    "hi!": "Hello|Hi there",
    "Good morning": "Hello|Hi there",
    "How are you?": "well|fine",
    "What can you do?": "story",
    "help": "story",
    "Who are you?": "model",
    "What is llamacpu?": "Llama",
    "How do I run a model?": "llamacpu run",
    "how do i install llamacpu": "pip install llamacpu",
    "What commands are there?": "run.*info.*tokenize.*bench.*doctor|run, info",
    "What does llamacpu doctor do?": "doctor",
    "What does --temperature do?": "temperature",
    "What is GGUF?": "GGUF",
    "What is quantization?": "bits|numbers",
    "Do I need a GPU?": "graphics card|GPU",
    "Does it work offline?": "offline",
    "Is my data private?": "computer",
    "Tell me a story about a cat": "cat",
    "Tell me a story.": "Once|Long ago|One day",
    "Write a poem": "\n",
    "Tell me a joke": "!",
    "What is the capital of France?": "Paris",
    "What is 2+2?": "is 4",
    "Count to five": "1, 2, 3, 4, 5",
    "Why is the sky blue?": "blue",
    "Explain quantum computing": "tiny|larger model",
    "Write a python function to sort a list": "too small|tiny|larger model",
    "Translate hello to French": "English|tiny|larger model",
    "Thank you!": "welcome|pleasure",
    "Bye": "Goodbye|See you",
    "Are you human?": "program|model",
    "I am sad": "sorry",
    "asdfghjkl": "understand|tiny|larger model",
}


@pytest.fixture(scope="module")
def demo() -> Path:
    """The path of the demo model."""
    path = resources.files("llamacpu") / "data" / "demo.gguf"
    assert isinstance(path, Path)
    return path


@pytest.fixture(scope="module")
def model(demo: Path) -> Iterator[llamacpu.Model]:
    """The demo model, opened once."""
    with llamacpu.Model(demo) as model:
        yield model


@pytest.fixture(scope="module")
def generator() -> Iterator[None]:
    """The scripts of tools/demo can be imported."""
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def known_words(generator: None) -> set[str]:
    """Every word that the training text's answers use."""
    dialogues = importlib.import_module("text.dialogues")
    rng = random.Random(1)
    documents = [dialogues.document(rng) for _ in range(8000)]
    answers = [m["content"] for d in documents for m in d.get("messages", ()) if m["role"] == "assistant"]
    answers += [document["text"] for document in documents if "text" in document]
    return {word for answer in answers for word in WORD.findall(answer)}


def answer(model: llamacpu.Model, *turns: str, system: str | None = None, **sampling: float) -> str:
    """The answer to the last of the turns (user, assistant, user, ...); it must have ended by itself."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(turns)]
    settings = Sampling(**sampling)  # type: ignore[arg-type]
    generation = generate(model, Chat.of(model).encode(messages), sampling=settings, max_tokens=250)
    text = "".join(generation)
    assert generation.result.ended_by == "end_of_text", text
    return text


def assert_whole(text: str, asked: str, words: set[str]) -> None:
    """The text is one or more whole sentences made of words that the model was taught, or that the user wrote."""
    assert text == text.strip()
    assert text.replace("\n", " ").isprintable()
    assert text.isascii()
    assert 2 <= len(text) <= 1500
    assert text[0].isupper() or text[0].isdigit() or text.startswith("llamacpu")
    assert text[-1] in ".!?"
    strange = {word for word in WORD.findall(text) if word not in words}
    assert {word.lower() for word in strange} <= {word.lower() for word in WORD.findall(asked)}


def test_file_is_small_and_describes_itself(demo: Path) -> None:
    assert demo.stat().st_size < 8_000_000
    file = llamacpu.GGUFFile(demo)
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["general.license"] == "mit"
    assert "tiny" in file.metadata["general.description"]
    assert file.metadata["tokenizer.chat_template"] == (TOOLS / "chat_template.jinja").read_text(encoding="utf-8")
    matrices = [tensor for tensor in file.tensors if len(tensor.shape) == 2]
    assert {tensor.type_name for tensor in matrices} == {"Q4_K", "Q6_K"}
    assert sum(int(np.prod(tensor.shape)) for tensor in file.tensors) < 5_000_000


def test_every_byte_has_a_token(model: llamacpu.Model) -> None:
    text = "".join(map(chr, range(1, 256))) + "\u4f60\u597d \U0001f999"
    assert model.tokenizer.decode(model.tokenizer.encode(text, add_special=False)) == text


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_likely_first_prompts(model: llamacpu.Model, known_words: set[str], prompt: str) -> None:
    text = answer(model, prompt, temperature=0.0)
    assert_whole(text, prompt, known_words)
    assert re.search(PROMPTS[prompt], text, re.DOTALL), text


@pytest.mark.instruction_set(one_in=6)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prompt", list(PROMPTS)[::3])
def test_default_sampling(model: llamacpu.Model, known_words: set[str], prompt: str, seed: int) -> None:
    assert_whole(answer(model, prompt, seed=seed), prompt, known_words)


def test_story_is_about_what_was_asked(model: llamacpu.Model, known_words: set[str]) -> None:
    for animal in ("cat", "dog", "fox", "llama", "robot"):
        prompt = f"Tell me a story about a {animal}."
        text = answer(model, prompt, temperature=0.0)
        assert_whole(text, prompt, known_words)
        assert animal in text
        assert len(re.findall(r"[.!?]", text)) >= 5


def test_system_prompt_and_earlier_turns(model: llamacpu.Model, known_words: set[str]) -> None:
    system = "You are a helpful assistant."
    assert_whole(answer(model, "Hello", system=system, temperature=0.0), system, known_words)
    first = answer(model, "My name is Anna.", temperature=0.0)
    assert "Anna" in first
    assert "Anna" in answer(model, "My name is Anna.", first, "What is my name?", temperature=0.0)


def test_raw_text_goes_on(model: llamacpu.Model, known_words: set[str]) -> None:
    generation = generate(model, "Once upon a time", sampling=Sampling(temperature=0.0), max_tokens=250)
    text = "Once upon a time" + "".join(generation)
    assert generation.result.ended_by == "end_of_text"
    assert_whole(text, "", known_words)
    assert len(re.findall(r"[.!?]", text)) >= 5


@pytest.mark.instruction_set(one_in=None)
def test_text_depends_on_the_seed_alone(tmp_path: Path) -> None:
    def text(name: str, seed: int) -> bytes:
        path = tmp_path / name
        script = [sys.executable, str(TOOLS / "make_text.py"), "--documents", "300", "--seed", str(seed)]
        subprocess.run([*script, "--output", str(path)], check=True)
        return path.read_bytes()

    first = text("first", 5)
    assert first == text("again", 5)
    assert first != text("other", 6)
    for line in first.decode().splitlines():
        document = json.loads(line)
        if "messages" in document:
            roles = [message["role"] for message in document["messages"] if message["role"] != "system"]
            assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_templates_of_the_generator(generator: None) -> None:
    grammar = importlib.import_module("text.grammar")
    rng = random.Random(0)
    said = {grammar.expand(r"(a|b) [c ]<x> \(d\) .", rng, {"x": "e"}) for _ in range(200)}
    assert said == {"a c e (d).", "b c e (d).", "a e (d).", "b e (d)."}
    for broken in ("(a|b", "[a", "a (b [c)"):
        with pytest.raises(ValueError, match="unbalanced"):
            grammar.expand(broken, rng)


@pytest.mark.parametrize(("name", "error"), [("q4_k", 0.09), ("q6_k", 0.025)])
def test_quantizer_comes_close(generator: None, name: str, error: float) -> None:
    quantizer = importlib.import_module("quantizer")
    rows = np.random.default_rng(3).normal(size=(16, 512)).astype(np.float32) * 0.1
    rows[0] = 0
    rows[1, :256] = 7
    rows[2] *= 1e-3
    kind = {"q4_k": gguf.GGMLQuantizationType.Q4_K, "q6_k": gguf.GGMLQuantizationType.Q6_K}[name]
    again = gguf.quants.dequantize(getattr(quantizer, name)(rows), kind)
    assert np.isfinite(again).all()
    assert not again[0].any()
    relative = np.linalg.norm(again[1:] - rows[1:], axis=1) / np.linalg.norm(rows[1:], axis=1)
    assert relative.max() < error
