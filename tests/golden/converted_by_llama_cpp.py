"""Running llama.cpp's converter on a tiny checkpoint, in this process.

Where it depends on a published vocabulary or shape, or has a fault that keeps it from running, it is helped, and only
there; what is written stays its own.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

RANKS = {"qwen.tiktoken": "endoftext im_start im_end", "hy.tiktoken": "endoftext startoftext bos eos pad"}


def converted_by_llama_cpp(folder: Path, kind: str, output: Path, rule: str | None, target: Path | None = None) -> None:
    """Convert.

    rule: the name of the rule that cuts text into words, None for the part that sees. target: the folder of the model
    that a drafter was made for.
    """
    import gguf
    import torch
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture

    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "auto": "GUESSED"}
    TextModel.get_vocab_base_pre = lambda _self, _tokenizer: rule
    hparams = ModelBase.load_hparams(folder, False)
    part = ModelType.MMPROJ if rule is None else ModelType.TEXT
    chosen = get_model_class(get_model_architecture(hparams, part), mmproj=rule is None)
    with torch.inference_mode(), _helped(folder, chosen, hparams):
        # It looks at numbers of Jais that it has not read otherwise.
        eager = chosen.__name__ == "JaisModel"
        chosen(folder, gguf.LlamaFileType[types[kind]], output, eager=eager, target_model_dir=target).write()


@contextlib.contextmanager
def _helped(folder: Path, chosen: Any, config: dict[str, Any]) -> Iterator[None]:
    import transformers
    from conversion.base import TextModel
    from conversion.deepseek import DeepseekV2Model

    with contextlib.ExitStack() as stack:

        def replace(name: str, function: Any) -> None:
            stack.enter_context(mock.patch.object(chosen, name, function))

        if chosen.__name__ == "BaichuanModel":  # it calls itself for every tensor that is not fused
            theirs = chosen.modify_tensors

            def modify(self: Any, data: Any, name: str, layer: int | None) -> Any:
                own = theirs if name.endswith("W_pack.weight") else TextModel.modify_tensors
                return own(self, data, name, layer)

            replace("modify_tensors", modify)
        if chosen.__name__ == "PlamoModel":  # it has the shapes of the published model in its code
            groups, heads, width = 5, config["num_attention_heads"], config["hidden_size"]
            each, size = heads // groups, width // heads
            replace("shuffle_attn_q_weight", lambda _, data: data.reshape(each, groups, size, width).permute(1, 0, 2, 3)
                    .reshape(width, width))  # fmt: skip
            replace("shuffle_attn_output_weight", lambda _, data: data.reshape(width, each, groups, size)
                    .permute(0, 2, 1, 3).reshape(width, width))  # fmt: skip
        if chosen.__name__ == "QwenModel":  # its own runtime does not open a file without this key

            def set_parameters(self: Any) -> None:
                TextModel.set_gguf_parameters(self)
                self.gguf_writer.add_layer_norm_rms_eps(self.hparams["layer_norm_epsilon"])

            replace("set_gguf_parameters", set_parameters)
        if chosen.__name__ == "DeciModel":  # it tells its two vocabularies apart by their published sizes
            replace("_set_vocab_llama_hf", chosen._set_vocab_gpt2)
            # A configuration of an unknown kind keeps transformers from loading the tokenizer beside it.
            stack.enter_context(_tokenizer(transformers.PreTrainedTokenizerFast.from_pretrained(folder)))
        if chosen.__name__ == "DeepseekV32Model":  # it asks for a property that this class of tokenizers does not keep
            kind = transformers.PreTrainedTokenizerFast
            stack.enter_context(mock.patch.object(kind, "add_bos_token", True))
            stack.enter_context(_tokenizer(kind.from_pretrained(folder)))
        if chosen.__name__ == "MuseGlimmerAssistantModel":  # it leaves out tokens of the target without a text
            replace("__init__", _with_size(chosen.__init__))
        if chosen.__name__ == "XverseModel":  # it writes no scores, without which the merges are lost
            stack.enter_context(_scores(folder))
        if getattr(chosen, "opt_num_mtp_layers", None) is not None:  # it wants to be told that there are none
            weights = (folder / "model.safetensors").read_bytes()
            stack.enter_context(mock.patch.object(chosen, "no_mtp", b"mtp.layers" not in weights))
        if chosen.__name__ == "Mistral3Model" and config.get("model_type") == "mistral4":
            # Its converter for Mistral's own form of the checkpoint writes these keys, that for this form does not.
            inner = chosen.Mistral4Model

            def set_scale(self: Any) -> None:
                DeepseekV2Model.set_gguf_parameters(self)
                self.gguf_writer.add_attn_temperature_scale(self.rope_parameters["llama_4_scaling_beta"])
                self.gguf_writer.add_attn_temperature_length(self.rope_parameters["original_max_position_embeddings"])

            stack.enter_context(mock.patch.object(inner, "set_gguf_parameters", set_scale))
        if chosen.__name__ == "LlavaVisionModel":  # it leaves out the embedding that it takes a row from
            kept = chosen.filter_tensors.__func__

            def keep(cls: Any, item: Any) -> Any:
                name = "embed_tokens.weight" if item[0].endswith("embed_tokens.weight") else item[0]
                return kept(cls, (name, item[1]))

            replace("filter_tensors", classmethod(keep))
        if chosen.__name__ == "Llama4VisionModel":  # published files have ln2; a name of another model shadows it

            def renamed(self: Any, data: Any, name: str, layer: int | None) -> Any:
                for ours, values in modify_llama_4(self, data, name, layer):
                    yield ours.replace("attn_post_norm", "ln2"), values

            modify_llama_4 = chosen.modify_tensors
            replace("modify_tensors", renamed)
        ranked = next((name for name in RANKS if (folder / name).exists()), None)
        if ranked:
            stack.enter_context(_tokenizer(_ranked(folder / ranked, RANKS[ranked])))
        if "chatglm3" in str(config.get("_name_or_path")):
            stack.enter_context(_tokenizer(_chatglm(folder)))
        yield


def _with_size(theirs: Any) -> Any:
    def initialize(self: Any, *given: Any, target_model_dir: Path, **further: Any) -> None:
        theirs(self, *given, target_model_dir=target_model_dir, **further)
        config = json.loads((target_model_dir / "config.json").read_text("utf-8"))
        self.hparams["vocab_size"] = config["text_config"]["vocab_size"]

    return initialize


@contextlib.contextmanager
def _tokenizer(tokenizer: Any) -> Iterator[None]:
    """A tokenizer instead of the one in a checkpoint's own code; the ids of its special tokens in llama.cpp's code."""
    import gguf
    import transformers

    ids = getattr(tokenizer, "special_tokens", {})
    published = {127958: ids.get("<|startoftext|>"), 127959: ids.get("<|bos|>")}
    theirs = gguf.GGUFWriter.add_bos_token_id
    with (
        mock.patch.object(transformers.AutoTokenizer, "from_pretrained", return_value=tokenizer),
        mock.patch.object(gguf.GGUFWriter, "add_bos_token_id", lambda w, id: theirs(w, published.get(id, id))),
    ):
        yield


@contextlib.contextmanager
def _scores(folder: Path) -> Iterator[None]:
    """Scores in the order of the merges, before the types of tokens."""
    import gguf

    found = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    scores = dict.fromkeys(found["model"]["vocab"], 0.0)
    for rank, (left, right) in enumerate(found["model"]["merges"]):
        scores[left + right] = -float(rank + 1)
    scores |= {added["content"]: -1000.0 for added in found["added_tokens"]}
    ids = {text: id for text, id in found["model"]["vocab"].items()}
    ids |= {added["content"]: added["id"] for added in found["added_tokens"]}
    theirs = gguf.GGUFWriter.add_token_types

    def add(writer: Any, types: Any) -> None:
        writer.add_token_scores([scores[text] for text in sorted(ids, key=ids.__getitem__)])
        theirs(writer, types)

    with mock.patch.object(gguf.GGUFWriter, "add_token_types", add):
        yield


def _ranked(path: Path, names: str) -> Any:
    lines = [line.split() for line in path.read_bytes().splitlines()]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    all_names = [*names.split(), *(f"extra_{number}" for number in range(205))]
    specials = {f"<|{name}|>": len(ranks) + at for at, name in enumerate(all_names)}
    return SimpleNamespace(
        mergeable_ranks=ranks, special_tokens=specials, vocab_size=len(ranks) + len(specials), get_vocab=lambda: ranks
    )


def _chatglm(folder: Path) -> Any:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    count = pieces.vocab_size()
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    specials = {count + at: name for at, name in enumerate(names)}

    def text(id: int) -> str:
        return specials.get(id) or ("" if id in (1, 2) or id >= count else pieces.id_to_piece(id))

    return SimpleNamespace(
        get_vocab=lambda: {text(id): id for id in range(count)},
        _convert_id_to_token=text,
        tokenizer=SimpleNamespace(sp_model=pieces),
    )
