"""`Llama`: a model with the methods, arguments and returned dictionaries of llama-cpp-python 0.3.

    llm = llamacpu.Llama("model.gguf", n_ctx=4096)
    llm("Once upon a time", max_tokens=32)["choices"][0]["text"]
    llm.create_chat_completion([{"role": "user", "content": "Hello"}])["choices"][0]["message"]["content"]

Notable differences: nothing is printed; log-probabilities do not need `logits_all`; several threads may use one
`Llama`; a prompt that does not fit raises `ContextOverflow`, a ValueError; every response (in a stream, the last chunk)
has "timings": `llamacpu.generation.Timings` as a dict, with the time in seconds at which each token was chosen.
"""

from llamacpu.llama import function_calling, standard_formats  # noqa: F401 (they fill the registry of chat formats)
from llamacpu.llama.caches import BaseLlamaCache, LlamaCache, LlamaDiskCache, LlamaRAMCache
from llamacpu.llama.front import Llama
from llamacpu.llama.state import LlamaState

__all__ = ["BaseLlamaCache", "Llama", "LlamaCache", "LlamaDiskCache", "LlamaRAMCache", "LlamaState"]
