"""Typical mistakes of those who call the Python API, and the sentences that answer them."""

import asyncio
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu.answers.reading import Piece

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")
HELLO = [{"role": "user", "content": "Hello"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}


class Given:
    """What is called: a model, a session, and `Llama`."""

    def __init__(self) -> None:
        self.model = llamacpu.Model(DEMO, threads=1)
        self.session = self.model.session(64)
        self.llama = llamacpu.Llama(DEMO, n_ctx=256, n_threads=1)

    def open(self, **arguments: Any) -> llamacpu.Llama:
        return llamacpu.Llama(DEMO, **arguments)

    def chat(self, messages: Any = HELLO, **arguments: Any) -> Any:
        return self.llama.create_chat_completion(messages, **{"max_tokens": 1, **arguments})

    def complete(self, prompt: Any = "Hello", **arguments: Any) -> Any:
        return self.llama.create_completion(prompt, **{"max_tokens": 1, **arguments})

    def submit(self, prompt: Any, **arguments: Any) -> Any:
        with llamacpu.Engine(self.model) as engine:
            return engine.submit(prompt, **arguments)


@pytest.fixture(scope="module")
def given() -> Iterator[Given]:
    found = Given()
    yield found
    found.llama.close()
    found.model.close()


CASES: list[tuple[Callable[[Given], Any], type[Exception], str]] = [
    (lambda g: g.open(n_ctx="4096"), TypeError, "n_ctx is '4096' (str); expected a whole number"),
    (lambda g: g.open(n_ctx=4096.5), TypeError, "n_ctx is 4096.5 (float); expected a whole number"),
    (lambda g: g.open(n_ctx=-5), ValueError, "n_ctx is -5; expected a number of tokens"),
    (lambda g: g.open(n_threads="4"), TypeError, "n_threads is '4' (str)"),
    (lambda g: g.open(n_batch="big"), TypeError, "n_batch is 'big' (str)"),
    (lambda g: g.open(seed="x"), TypeError, "seed is 'x' (str)"),
    (lambda g: g.open(embedding="false"), TypeError, "embedding is 'false' (str); expected True or False"),
    (lambda g: g.open(rope_freq_base="1e6"), TypeError, "rope_freq_base is '1e6' (str); expected a number"),
    (lambda g: g.open(chat_format="nosuch"), llamacpu.TemplateError, "there is no chat template 'nosuch'"),
    (lambda g: g.open(chat_handler="x"), TypeError, "chat_handler is 'x' (str); expected a function"),
    (lambda g: g.open(type_k="x"), ValueError, "type_k is 'x'; expected 0 (f32)"),
    (lambda g: g.open(overflow="x"), ValueError, "overflow is 'x'; expected \"error\""),
    (lambda g: g.open(kv_overrides="x"), TypeError, "kv_overrides is 'x' (str); expected a dict"),
    (lambda g: g.open(draft_model=5), TypeError, "draft is a int; expected"),
    (lambda g: llamacpu.Llama(5), TypeError, "model_path is 5 (int); expected the path of a file"),  # type: ignore[arg-type]
    (lambda g: llamacpu.Llama("nowhere.gguf"), llamacpu.GGUFError, "nowhere.gguf: no such file"),
    (lambda g: g.chat(temperature="hot"), TypeError, "temperature is 'hot' (str); expected a number"),
    (lambda g: g.chat(top_k=0.5), TypeError, "top_k is 0.5 (float); expected a whole number"),
    (lambda g: g.chat(top_p=2.5), ValueError, "top_p is 2.5; expected 0 to 1"),
    (lambda g: g.chat(max_tokens="1"), TypeError, "max_tokens is '1' (str)"),
    (lambda g: g.chat(seed="x"), TypeError, "seed is 'x' (str)"),
    (lambda g: g.chat(stop=5), TypeError, "stop is 5 (int); expected a text or a list of texts"),
    (lambda g: g.chat(stop=[5]), ValueError, "a stop string is 5"),
    (lambda g: g.chat(stop=""), ValueError, "a stop string is ''"),
    (lambda g: g.chat(stream="false"), TypeError, "stream is 'false' (str)"),
    (lambda g: g.chat(response_format="json"), ValueError, "response_format is 'json' (str); expected a dict such as"),
    (lambda g: g.chat(response_format={"type": "jsn"}), ValueError, "response_format has the type 'jsn'"),
    (lambda g: g.chat(tools="x"), TypeError, "tools is 'x' (str); expected a list"),
    (lambda g: g.chat(tools=TOOL), TypeError, "tools is {'type': 'function'"),
    (lambda g: g.chat(tools=[5]), TypeError, "tools[0] is 5 (int)"),
    (lambda g: g.chat(tools=[TOOL, {}]), ValueError, "tools[1] has no name"),
    (lambda g: g.chat(tools=[{"type": "function", "function": {"name": 5}}]), ValueError, "has the name 5 (int)"),
    (lambda g: g.chat(tools=[{"name": "f", "parameters": "x"}]), TypeError, "tools[0] (f) has the parameters 'x'"),
    (lambda g: g.chat(functions=[{}]), ValueError, "functions[0] has no name"),
    (lambda g: g.chat(tools=[TOOL], tool_choice=5), ValueError, "tool_choice is 5; expected"),
    (lambda g: g.chat(tools=[TOOL], tool_choice="g"), ValueError, "tool_choice names 'g'; expected one of f"),
    (lambda g: g.chat(logit_bias=[1]), TypeError, "logit_bias is [1] (list); expected a dict"),
    (lambda g: g.chat(logit_bias={"a": 1}), ValueError, "logit_bias is {'a': 1} (dict); expected token ids"),
    (lambda g: g.chat(grammar='root ::= "a"'), TypeError, "expected a Grammar, as of Grammar.gbnf(text)"),
    (lambda g: g.chat(logits_processor=5), TypeError, "logits_processor is 5 (int)"),
    (lambda g: g.chat(timeout="x"), TypeError, "timeout is 'x' (str); expected a number"),
    (lambda g: g.chat(cancel="x"), TypeError, "cancel is 'x' (str); expected a CancelToken"),
    (lambda g: g.chat(temprature=1), TypeError, "temprature"),
    (lambda g: g.chat("Hello"), TypeError, "messages is 'Hello' (str); expected a list of messages"),
    (lambda g: g.chat(HELLO[0]), TypeError, "messages is {'role': 'user'"),
    (lambda g: g.chat([]), ValueError, "messages is empty"),
    (lambda g: g.chat(["Hello"]), TypeError, "messages[0] is 'Hello' (str); expected a dict such as"),
    (lambda g: g.chat([*HELLO, {"role": "user"}]), ValueError, "messages[1] has no content"),
    (lambda g: g.chat([{"role": "user", "contents": "x"}]), ValueError, "messages[0] has no content, but 'contents'"),
    (lambda g: g.chat([{"content": "x"}]), ValueError, "messages[0] has no role"),
    (lambda g: g.chat([{"role": "user", "content": 5}]), TypeError, "messages[0] has the content 5 (int)"),
    (lambda g: g.complete(5), TypeError, "prompt is 5 (int); expected a text or a list of token ids"),
    (lambda g: g.complete(HELLO), TypeError, "prompt is a list of messages"),
    (lambda g: g.complete(["a"]), TypeError, "prompt holds 'a' (str)"),
    (lambda g: g.complete(logprobs="x"), TypeError, "logprobs is 'x' (str)"),
    (lambda g: g.complete(suffix=5), TypeError, "suffix is 5 (int); expected a text"),
    (lambda g: llamacpu.Tokenizer("f.gguf"), TypeError, "file is 'f.gguf' (str); expected a GGUFFile"),  # type: ignore[arg-type]
    (lambda g: llamacpu.GGUFFile(5), TypeError, "path is 5 (int); expected the path of a file"),  # type: ignore[arg-type]
    (lambda g: llamacpu.Engine(5), TypeError, "model is 5 (int); expected a Model, or the path"),  # type: ignore[arg-type]
    (lambda g: llamacpu.Sampling(temperature="hot"), ValueError, "temperature is 'hot'; expected a number"),  # type: ignore[arg-type]
    (lambda g: llamacpu.Model(DEMO, threads="4"), TypeError, "threads is '4' (str)"),  # type: ignore[arg-type]
    (lambda g: llamacpu.Model(DEMO, overrides="a=b"), TypeError, "overrides is 'a=b' (str); expected a dict"),  # type: ignore[arg-type]
    (lambda g: g.model.session("64"), TypeError, "context is '64' (str)"),  # type: ignore[arg-type]
    (lambda g: g.model.embed(5), TypeError, "input is 5 (int); expected a text or a list of texts"),  # type: ignore[call-overload]
    (lambda g: g.model.embed([1]), TypeError, "input is [1] (list)"),  # type: ignore[list-item]
    (lambda g: g.session.forward("Hello"), TypeError, "token ids are needed, not text"),
    (lambda g: g.model.generate(HELLO), TypeError, "prompt is a list of messages"),  # type: ignore[arg-type]
    (lambda g: g.model.generate("x", temperature=0.5), TypeError, "sampling=llamacpu.Sampling(temperature=0.5)"),  # type: ignore[arg-type]
    (lambda g: g.model.generate("x", n_predict=5), TypeError, "did you mean 'max_tokens'?"),  # type: ignore[arg-type]
    (lambda g: g.model.generate("x", max_token=5), TypeError, "no argument 'max_token'; did you mean 'max_tokens'?"),  # type: ignore[arg-type]
    (lambda g: g.model.generate("x", sampling=0.5), TypeError, "sampling is 0.5 (float); expected Sampling("),  # type: ignore[arg-type]
    (lambda g: g.model.generate("x", stop=5), TypeError, "stop is 5 (int)"),  # type: ignore[arg-type]
    (lambda g: g.model.generate("x", on_token=5), TypeError, "on_token is 5 (int); expected a function"),  # type: ignore[arg-type]
    (lambda g: g.model.chat("Hello"), TypeError, "messages is 'Hello' (str)"),  # type: ignore[call-overload]
    (lambda g: g.model.chat(HELLO, temperature=1), TypeError, "sampling=llamacpu.Sampling(temperature=1)"),  # type: ignore[call-overload]
    (lambda g: g.model.chat(HELLO, tools=[{}]), ValueError, "tools[0] has no name"),  # type: ignore[call-overload]
    (lambda g: llamacpu.Sampling(temp=1), TypeError, "no argument 'temp'; did you mean 'temperature'?"),  # type: ignore[call-arg]
    (lambda g: llamacpu.Sampling(top_pp=1), TypeError, "no argument 'top_pp'; did you mean 'top_p'?"),  # type: ignore[call-arg]
    (lambda g: llamacpu.ModelDraft("x.gguf"), TypeError, "model is 'x.gguf' (str); expected a Model"),  # type: ignore[arg-type]
    (lambda g: g.submit("x", temperature=0.5), TypeError, "sampling=llamacpu.Sampling(temperature=0.5)"),
    (
        lambda g: g.submit("x", max_token=5),
        TypeError,
        "submit takes no argument 'max_token'; did you mean 'max_tokens'?",
    ),
    (lambda g: g.submit(HELLO), TypeError, "prompt is a list of messages"),
    (lambda g: llamacpu.Grammar.json_schema(5), llamacpu.GrammarError, "the JSON schema is 5 (int); expected"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_mistake_is_one_sentence_that_names_it(given: Given, number: int) -> None:
    call, kind, told = CASES[number]
    with pytest.raises(kind) as raised:
        call(given)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_an_unknown_argument_of_llama_is_a_visible_warning(given: Given) -> None:
    with pytest.warns(UserWarning, match=r"no argument 'n_ctxx', and leaves it out; did you mean 'n_ctx'\?") as caught:
        given.open(n_ctxx=5).close()
    assert Path(caught[0].filename) == Path(__file__)


def test_representations_say_what_it_is(given: Given) -> None:
    assert repr(given.llama) == f"<Llama 'demo.gguf': {given.llama.n_tokens} of 256 tokens>"
    closed = given.open(n_ctx=64)
    closed.close()
    assert repr(closed) == "<Llama 'demo.gguf', closed>"
    assert repr(given.llama.chat).startswith("<Chat 'default'")
    assert repr(given.model.generate("x", max_tokens=2)) == "<Generation: 0 tokens so far>"


def test_numbers_of_other_libraries_are_numbers(given: Given) -> None:
    import numpy as np

    text = given.chat(temperature=np.float32(0), top_k=np.int64(5), max_tokens=np.int32(2), seed=np.uint32(1))
    assert text["usage"]["completion_tokens"] <= 2


def test_a_chat_of_the_model_in_three_ways(given: Given) -> None:
    sampling = llamacpu.Sampling(temperature=0)
    messages: Any = [{"role": "user", "content": "What can you do?"}]
    answer = given.model.chat(messages, sampling=sampling, max_tokens=12)
    assert answer.content
    pieces = given.model.chat(messages, sampling=sampling, max_tokens=12, stream=True)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)) == answer.content

    async def streamed() -> str:
        text = ""
        async for piece in given.model.chat(messages, sampling=sampling, max_tokens=12, stream=True):
            text += piece.text if isinstance(piece, Piece) else ""
        return text

    assert asyncio.run(streamed()) == answer.content
    system = given.model.chat(messages, system="Be brief.", sampling=sampling, max_tokens=1)
    assert system.result.prompt_tokens > answer.result.prompt_tokens
    call = given.model.chat(messages, tools=[TOOL], tool_choice="required", sampling=sampling)  # type: ignore[list-item]
    assert [(found.name, found.arguments) for found in call.tool_calls] == [("f", "{}")]


def test_what_is_made_says_what_it_is(given: Given) -> None:
    small = llamacpu.ModelDraft(given.model, max_tokens=4)
    assert repr(small) == "<ModelDraft of at most 4 tokens by <Model 'demo.gguf': llama, 4 layers>>"
    assert repr(llamacpu.NGramDraft(2)) == "NGramDraft(min_match=2, max_tokens=15, adaptive=True)"
    assert repr(llamacpu.Grammar.gbnf('root ::=   "a"')) == "<Grammar 'root ::= \"a\"'>"
    assert len(repr(llamacpu.Grammar.gbnf('root ::= "' + "a" * 500 + '"'))) < 90
    running = given.model.chat(HELLO, stream=True, max_tokens=3, sampling=llamacpu.Sampling(temperature=0))
    assert repr(running) == "<RunningAnswer: <Generation: 0 tokens so far>>"
    running.close()
    with llamacpu.Engine(given.model) as engine:
        request = engine.submit("Hello", client="ada", max_tokens=1)
        request.read()
        assert repr(request).endswith(" of 'ada': finished>")
