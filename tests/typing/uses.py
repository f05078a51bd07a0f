"""Right and wrong uses of the API, for type checkers: a line that ends in `# wrong` has a mistake, no other one has."""

from collections.abc import Callable
from typing import Any

from typing_extensions import assert_type

import llamacpu
from llamacpu.answers import Answer, RunningAnswer
from llamacpu.answers.messages import ChatMessage, ChatTool
from llamacpu.llama.types import CreateChatCompletionResponse, CreateCompletionResponse

MESSAGES: list[ChatMessage] = [{"role": "user", "content": "Hello"}]
TOOLS: list[ChatTool] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
model = llamacpu.Model("model.gguf")
llama = llamacpu.Llama("model.gguf")
session = model.session()

RIGHT: list[Callable[[], Any]] = [
    lambda: llamacpu.Model("model.gguf", threads=4),
    lambda: llamacpu.Model("model.gguf", load="copy", overrides={"a": True}),
    lambda: llamacpu.Model("model.gguf", on_load=lambda done, total: None),
    lambda: llamacpu.Llama("model.gguf", n_ctx=4096),
    lambda: llamacpu.Llama(model_path="model.gguf", n_threads=None, seed=1, verbose=False),
    lambda: llamacpu.Llama("model.gguf", chat_format="llama-3", embedding=True),
    lambda: llamacpu.Llama("model.gguf", overflow="shift", draft_model=None),
    lambda: llamacpu.Sampling(temperature=0.5, top_k=10, seed=None),
    lambda: llamacpu.Sampling(samplers=("top_k", "temperature")),
    lambda: model.session(4096, "q8_0"),
    lambda: model.session(context=None, kv_type="f32"),
    lambda: session.forward([1, 2, 3]),
    lambda: session.forward([1, 2, 3], logits="all"),
    lambda: session.fork().truncate(2),
    lambda: model.tokenizer.encode("Hello", add_special=False),
    lambda: model.tokenizer.decode([1, 2], skip_special=True),
    lambda: model.embed(["a", "b"], normalize=True),
    lambda: model.embed("a", "mean", task="query"),
    lambda: model.generate("Hello", max_tokens=5),
    lambda: model.generate([1, 2], sampling=llamacpu.Sampling(temperature=0), stop=["a", "b"]),
    lambda: model.generate("Hello", overflow="truncate", keep=5, timeout=1.5),
    lambda: model.generate("Hello", on_token=lambda token: None, log_probabilities=3),
    lambda: model.chat([{"role": "user", "content": "Hello"}]),
    lambda: model.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]).content,
    lambda: model.chat(MESSAGES, max_tokens=5, stop="a").tool_calls,
    lambda: model.chat(MESSAGES, stream=True).read().content,
    lambda: model.chat(MESSAGES, tools=TOOLS, tool_choice="required"),
    lambda: model.chat(MESSAGES, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "f"}}),
    lambda: model.chat(MESSAGES, response_format={"type": "json_object"}),
    lambda: model.chat(MESSAGES, response_format={"type": "json_schema", "json_schema": {"schema": {}}}),
    lambda: model.chat([{"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "1"}]),
    lambda: llama("Hello", max_tokens=5)["choices"][0]["text"],
    lambda: llama.create_completion("Hello", temperature=0.5, stop=["a"])["model"],
    lambda: [chunk["choices"] for chunk in llama.create_completion("Hello", stream=True)],
    lambda: llama.create_chat_completion(MESSAGES)["choices"][0]["message"]["content"],
    lambda: llama.create_chat_completion(MESSAGES, tools=TOOLS, tool_choice="auto")["id"],
    lambda: llama.create_chat_completion(MESSAGES, response_format={"type": "json_object", "schema": {}}),
    lambda: [c["choices"][0]["delta"].get("content") for c in llama.create_chat_completion(MESSAGES, stream=True)],
    lambda: llamacpu.Tokenizer(llamacpu.GGUFFile("model.gguf")).vocab_size,
    lambda: llamacpu.Engine("model.gguf", max_running=4),
]

WRONG: list[Callable[[], Any]] = [
    lambda: llamacpu.Model("model.gguf", threads="4"),  # wrong
    lambda: llamacpu.Model("model.gguf", thread=4),  # wrong
    lambda: llamacpu.Model("model.gguf", load="mmap"),  # wrong
    lambda: llamacpu.Model(5),  # wrong
    lambda: llamacpu.Llama("model.gguf", n_ctx="4096"),  # wrong
    lambda: llamacpu.Llama("model.gguf", n_ctxx=4096),  # wrong
    lambda: llamacpu.Llama("model.gguf", verbose="false"),  # wrong
    lambda: llamacpu.Llama("model.gguf", overflow="drop"),  # wrong
    lambda: llamacpu.Sampling(temprature=0.5),  # wrong
    lambda: llamacpu.Sampling(temperature="hot"),  # wrong
    lambda: llamacpu.Sampling(0.5),  # wrong
    lambda: model.session("4096"),  # wrong
    lambda: model.session(kv_type="int4"),  # wrong
    lambda: session.forward("Hello"),  # wrong
    lambda: session.forward([1], logits="some"),  # wrong
    lambda: model.tokenizer.encode(5),  # wrong
    lambda: model.tokenizer.decode("Hello"),  # wrong
    lambda: model.embed(5),  # wrong
    lambda: model.embed("a", "median"),  # wrong
    lambda: model.embed("a", task="question"),  # wrong
    lambda: model.generate(MESSAGES),  # wrong
    lambda: model.generate("Hello", temperature=0.5),  # wrong
    lambda: model.generate("Hello", max_token=5),  # wrong
    lambda: model.generate("Hello", stop=5),  # wrong
    lambda: model.generate("Hello", sampling=0.5),  # wrong
    lambda: model.generate("Hello", overflow="drop"),  # wrong
    lambda: model.chat("Hello"),  # wrong
    lambda: model.chat([{"role": "usr", "content": "Hello"}]),  # wrong
    lambda: model.chat([{"role": "user"}]),  # wrong
    lambda: model.chat([{"role": "user", "contents": "Hello"}]),  # wrong
    lambda: model.chat(MESSAGES, temperature=1),  # wrong
    lambda: model.chat(MESSAGES, response_format="json"),  # wrong
    lambda: model.chat(MESSAGES, tools=[{"type": "function"}]),  # wrong
    lambda: model.chat(MESSAGES).contents,  # wrong
    lambda: llama.create_completion("Hello", temprature=0.5),  # wrong
    lambda: llama.create_completion("Hello")["choises"],  # wrong
    lambda: llama.create_chat_completion("Hello"),  # wrong
    lambda: llama.create_chat_completion(MESSAGES, temprature=1),  # wrong
    lambda: llama.create_chat_completion(MESSAGES, response_format={"type": "jsn"}),  # wrong
    lambda: llama.create_chat_completion(MESSAGES)["choices"][0]["mesage"],  # wrong
]

assert_type(model.chat(MESSAGES), Answer)
assert_type(model.chat(MESSAGES, stream=True), RunningAnswer)
assert_type(llama.create_chat_completion(MESSAGES), CreateChatCompletionResponse)
assert_type(llama("Hello"), CreateCompletionResponse)


async def streamed() -> str:
    """Under `async for`, too."""
    text = ""
    async for chunk in llama.create_chat_completion(MESSAGES, stream=True):
        text += chunk["choices"][0]["delta"].get("content") or ""
    return text
