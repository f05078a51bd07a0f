"""Makes converted.json.gz: tiny models of every family, and the digests of what llama.cpp's converter makes of them.

    python tests/golden/make_converted.py LLAMA_CPP [NAME ...]

makes all of them again, or the named ones. It needs torch, transformers, sentencepiece, protobuf and llama.cpp's
sources (the folder with convert_hf_to_gguf.py), and prints for each model and type whether our converter writes the
same bytes; files that differ are copied to the folder $KEEP. The tokenizers are too small for llama.cpp to know them,
so the name of the rule that cuts text into words is taken from our file.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import os
import shutil
import struct
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "python")]

from converted_by_llama_cpp import converted_by_llama_cpp  # noqa: E402
from converted_drafters import DRAFTERS, DRAFTERS_BY_HAND, DRAFTERS_VALUES, TARGETS  # noqa: E402
from converted_models import BY_HAND, MODELS, PUBLISHED  # noqa: E402
from converted_models_further import FURTHER, FURTHER_BY_HAND, FURTHER_PUBLISHED, PREDICTING, SETTINGS, VALUES  # noqa: E402
from converted_towers import BREAK, NAMES, PICTURES, PREPROCESSORS, TOWERS, TOWERS_BY_HAND  # noqa: E402

from converted_checkpoints import GOLDEN, load, write_checkpoint  # noqa: E402
from llamacpu import convert  # noqa: E402
from llamacpu.errors import LlamaCpuError  # noqa: E402
from llamacpu.gguf.file import GGUFFile  # noqa: E402
from llamacpu.tools.convert.tokenizers.protobuf import read_piece_model  # noqa: E402

TEXT = (
    "The quick brown fox jumps over the lazy dog. Hello world, it's 3 o'clock in 2024! "
    "na\u00efve caf\u00e9 d\u00e9j\u00e0 vu "
    "\u4f60\u597d \u043c\u0438\u0440 def f(x):\n    return x + 1\n\n\n  for i in range(100): print(i)\n"
) * 30
CARD = """---
license: [apache-2.0]
language:
- en
- no
base_model: meta-llama/Llama-3.2-1B-Instruct
datasets:
- org/some-data-v1.5
- https://huggingface.co/datasets/other
tags: [chat]
pipeline_tag: text-generation
model_creator: Somebody
---
# A model
"""
MODELS, BY_HAND, PUBLISHED = MODELS | FURTHER, BY_HAND | FURTHER_BY_HAND, PUBLISHED | FURTHER_PUBLISHED
MODELS |= TOWERS | DRAFTERS
BY_HAND |= DRAFTERS_BY_HAND | TOWERS_BY_HAND
SEEING = {**TOWERS, **TOWERS_BY_HAND}
VALUES |= DRAFTERS_VALUES
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "modern-bert", "gemma-embedding")
TYPES = ("f32", "f16", "bf16", "q8_0", "auto")


def save_pieces(folder: Path, name: str, **settings: Any) -> None:
    """A vocabulary of SentencePiece, with tokens that were added to it."""
    import sentencepiece

    text = folder / "text.txt"
    text.write_text(TEXT, "utf-8")
    ids = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "m"), minloglevel=2, hard_vocab_limit=False,
        normalization_rule_name="identity", **{**ids, **settings},
    )  # fmt: skip
    (folder / "m.model").rename(folder / name)
    for left in ("text.txt", "m.vocab"):
        (folder / left).unlink()


def save_ranks(path: Path) -> None:
    """A vocabulary as a file of ranks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [bytes(byte_of[letter] for letter in "".join(pair)) for pair in merges]
    if path.suffix == ".json":
        vocab = [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(token).decode(),
                "token_str": token.decode("utf-8", "replace"),
            }
            for rank, token in enumerate(dict.fromkeys(tokens))
        ]
        sizes = {"num_vocab_tokens": 300, "default_vocab_size": 320, "default_num_special_tokens": 20, "version": "v3"}
        rule = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        path.write_text(json.dumps({"config": {"pattern": rule, **sizes}, "vocab": vocab}), "utf-8")
        return
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(dict.fromkeys(tokens))]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    (path.parent / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{{ messages[0].content }}"}), "utf-8"
    )


def save_characters(folder: Path) -> None:
    """Merges of characters with a token for each byte, as tokenizers that were SentencePiece's have them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=[*specials, *bytes_], show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    found = json.loads(tokenizer.to_str())
    found["added_tokens"] = [entry for entry in found["added_tokens"] if entry["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(found))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken("<|tool_call>", normalized=False), AddedToken("<more>", normalized=False)])
    names = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": text for name, text in names.items()}
    )
    fast.save_pretrained(folder)


def save_unigrams(folder: Path) -> None:
    """A Unigram vocabulary in tokenizer.json alone, with fairseq's special tokens."""
    import sentencepiece
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import XLMRobertaTokenizerFast

    rules = folder / "rules.tsv"
    rules.write_text("FF21\t41\nFF22\t42\n", "utf-8")
    save_pieces(folder, "m.spm", vocab_size=120, model_type="unigram", normalization_rule_tsv=str(rules))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.spm"))
    charsmap = read_piece_model((folder / "m.spm").read_bytes(), "m.spm").charsmap
    for path in (folder / "m.spm", rules):
        path.unlink()
    entries = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    entries += [(pieces.id_to_piece(id), pieces.get_score(id)) for id in range(3, pieces.vocab_size())]
    tokenizer = Tokenizer(models.Unigram([*entries, ("<mask>", 0.0)], 3))
    tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    ids = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    XLMRobertaTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def save_tokenizer(folder: Path, kind: str) -> None:
    """Write the files of a tokenizer of a kind."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    if kind in ("pieces", "pieces alone"):
        save_pieces(
            folder, "tokenizer.model", vocab_size=312, model_type="bpe", byte_fallback=True, character_coverage=0.99,
            user_defined_symbols=["<|im_start|>"],
        )  # fmt: skip
        added = {"0": ("<unk>", True), "1": ("<s>", True), "2": ("</s>", True), "313": ("<|more|>", False),
                 "314": ("\u2581word", False)}  # fmt: skip
        if kind == "pieces alone":
            added = dict(list(added.items())[:3])
        settings = {
            "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "add_bos_token": True, "add_eos_token": False, "chat_template": "{{ messages[0].content }}",
            "added_tokens_decoder": {id: {"content": text, "special": s} for id, (text, s) in added.items()},
        }  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        return
    if kind == "tekken":
        save_ranks(folder / "tekken.json")
        return
    if kind == "characters":
        save_characters(folder)
        return
    if kind == "unigram in JSON":
        save_unigrams(folder)
        return
    if kind == "unigram of DeBERTa":
        pieces = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
        ids: dict[str, Any] = {f"{name}_id": id for id, name in enumerate(pieces)}
        ids |= {f"{name}_piece": text for name, text in pieces.items()}
        save_pieces(folder, "spm.model", vocab_size=120, model_type="unigram", **ids)
        settings = {
            "tokenizer_class": "DebertaV2Tokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]",
            "added_tokens_decoder": {str(id): {"content": text, "special": True} for id, text in enumerate(
                [*pieces.values()])} | {"120": {"content": "[MASK]", "special": True}},
        }  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        return
    if kind == "unigram":
        save_pieces(folder, "sentencepiece.bpe.model", vocab_size=120, model_type="unigram")
        names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "pad": "<pad>"}
        settings = {"tokenizer_class": "XLMRobertaTokenizer", **{f"{key}_token": text for key, text in names.items()}}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        return
    if kind.startswith("ranks"):
        save_ranks(folder / f"{kind.removeprefix('ranks ')}.tiktoken")
        return
    special: dict[str, str] = {}
    if kind == "pieces of words":
        trained = BertWordPieceTokenizer(lowercase=True)
        trained.train_from_iterator([TEXT], vocab_size=300, show_progress=False)
        tokenizer = trained._tokenizer
        ids = [(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
        )
        special = {f"{key}_token": f"[{key.upper()}]" for key in ("cls", "sep", "unk", "pad", "mask")}
    elif kind == "roberta":
        trained = ByteLevelBPETokenizer()
        texts = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trained.train_from_iterator([TEXT], vocab_size=310, special_tokens=texts, show_progress=False)
        tokenizer = trained._tokenizer
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>"}
        special = {f"{key}_token": text for key, text in names.items()}
    else:
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama"))
        digits = "{1,3}" if kind == "llama" else ""
        expression = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits
            + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )  # fmt: skip
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt-2")
        tokenizer.pre_tokenizer = letters if kind == "gpt-2" else pre_tokenizers.Sequence([split, letters])
        tokenizer.decoder = decoders.ByteLevel()
        texts = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        texts += ["<|user|>", "<|observation|>", "[gMASK]", "<sop>"] if kind == "glm" else []
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=310, special_tokens=texts, initial_alphabet=alphabet)
        tokenizer.train_from_iterator([TEXT], trainer)
        tokenizer.add_tokens(["<tool>"])
        special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        if kind == "llama":
            start = "<|im_start|>"
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{start} $A", pair=f"{start} $A $B", special_tokens=[(start, tokenizer.token_to_id(start))]
            )
            special["bos_token"] = start
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    if kind in ("words", "glm", "llama"):
        fast.chat_template = "{{ messages[0].content }}"
    fast.save_pretrained(folder)


def stored_tokenizer(kind: str) -> dict[str, str]:
    """The files of a tokenizer: name to text, or to base64."""
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder), kind)
        return {
            path.name: f"base64:{base64.b64encode(path.read_bytes()).decode()}"
            if path.suffix == ".model"
            else path.read_text("utf-8")
            for path in sorted(Path(folder).iterdir())
        }


def stored_model(name: str) -> dict[str, Any]:
    """The configuration of a model and the shapes of its tensors, as transformers saves them."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        Mistral4ForCausalLM,
    )

    model_type, tokenizer, dtype, settings = MODELS[name]
    kind = AutoModel if name in ENCODERS or name in DRAFTERS else AutoModelForCausalLM
    kind = AutoModelForImageTextToText if "vision_config" in settings else kind
    config = AutoConfig.for_model(model_type, **settings)
    # The class of Mistral 4 is not one that the automatic ones know.
    model = Mistral4ForCausalLM(config) if name == "mistral4" else kind.from_config(config, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        raw = (Path(folder) / "model.safetensors").read_bytes()
        stored = json.loads((Path(folder) / "config.json").read_text("utf-8")) | PUBLISHED.get(name, {})
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    header.pop("__metadata__", None)
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for tensor in sorted(header):
        published, shape = tensor.replace(*NAMES.get(name, ("", "")), 1), header[tensor]["shape"]
        if model_type == "qwen3_vl_moe" and ".experts." in tensor:  # published with inputs for rows
            shape = [shape[0], shape[2], shape[1]]
        groups.setdefault((header[tensor]["dtype"], tuple(shape)), []).append(published)
    found = {"config": stored, "tokenizer": tokenizer, "tensors": [[t, list(s), n] for (t, s), n in groups.items()]}
    if name in TOWERS:
        found["part"] = "mmproj"
        settings = PICTURES | PREPROCESSORS.get(name, {})
        found["files"] = {"preprocessor_config.json": json.dumps(settings)}
        if config.vision_config.model_type == "pixtral":
            found["files"]["tokenizer_config.json"] = json.dumps(BREAK)
    if name == "gemma4-unified":
        found["files"] = {"generation_config.json": json.dumps({"suppress_tokens": [5, 6]})}
    if name in VALUES:
        found["values"] = VALUES[name]
    if name.startswith("Tiny"):
        found["files"] = {"README.md": CARD, "generation_config.json": json.dumps({"temperature": 0.6, "top_k": 40})}
    return found


def with_predictor(name: str) -> dict[str, Any]:
    """A model with a layer that predicts further tokens."""
    other, layer, further, around, settings = PREDICTING[name]
    model = stored_model(other)
    model["config"] |= settings
    for _, _, names in model["tensors"]:
        names += [tensor.replace(layer, further) for tensor in names if tensor.startswith(layer)]
    model["tensors"] += [["F32", shape, [tensor]] for tensor, shape in around.items()]
    return model


def model_by_hand(name: str) -> dict[str, Any]:
    """The same for a model that transformers has no class for."""
    config, tokenizer, whole, prefix, layer = BY_HAND[name]
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_transformer_layers")
    count = next((config[key] for key in names if key in config), 0)
    entries = [entry.split() for entry in whole.split("; ")]
    for number in range(count if layer else 0):
        entries += [f"{prefix}{number}.{entry}".split() for entry in layer.split("; ")]
    tensors = []
    for text, *shape in entries:
        # "a" is a.weight, "a:b" is a.b, "a::" is a. What follows the shape is another type than F32.
        stem, colon, suffix = text.partition(":")
        full = stem if suffix == ":" else f"{stem}.{suffix if colon else 'weight'}"
        kind = shape.pop() if shape[-1].isalnum() and not shape[-1].isdecimal() else "F32"
        tensors.append([kind, [int(size) for size in shape], [full]])
    found = {"config": config, "tokenizer": tokenizer, "tensors": tensors, "values": VALUES.get(name, {})}
    if name in TOWERS_BY_HAND:
        found |= {"part": "mmproj", "files": {"preprocessor_config.json": json.dumps(PICTURES)}}
    return found


def main() -> None:
    """Make the file and print the comparison."""
    sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/gguf-py"]
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    facts: dict[str, Any] = {"models": {}, "tokenizers": {}}
    chosen = sys.argv[2:] or [*MODELS, *PREDICTING, *BY_HAND]
    if sys.argv[2:]:
        facts = load()
    for name in chosen:
        kind = (MODELS.get(name) or MODELS.get(PREDICTING.get(name, ("",))[0]) or BY_HAND[name])[1]
        if kind not in facts["tokenizers"]:
            facts["tokenizers"][kind] = stored_tokenizer(kind)
        make = stored_model if name in MODELS else with_predictor if name in PREDICTING else model_by_hand
        facts["models"][name] = make(name)
        if name in SETTINGS:
            settings = json.loads(facts["tokenizers"][kind]["tokenizer_config.json"]) | SETTINGS[name]
            facts["models"][name]["files"] = {"tokenizer_config.json": json.dumps(settings)}
    work = Path(tempfile.mkdtemp())
    for name in chosen:
        model = facts["models"][name]
        folder = write_checkpoint(work / name, model, facts["tokenizers"])
        target = None
        if name in TARGETS:
            model["target"] = TARGETS[name]
            target = write_checkpoint(work / f"{name}-target", facts["models"][TARGETS[name]], facts["tokenizers"])
        model["digests"] = {}
        for kind in TYPES:
            ours, theirs = work / "ours.gguf", work / "theirs.gguf"
            try:
                convert(folder, ours, type=kind, mmproj=name in SEEING, target_model=target)
            except LlamaCpuError as error:
                sys.stdout.write(f"{name:30} {kind:5} CANNOT BE CONVERTED: {error}\n")
                break
            with GGUFFile(ours) as file:
                rule = str(file.metadata.get("tokenizer.ggml.pre"))
                model["architecture"] = str(file.metadata["general.architecture"])
            try:
                converted_by_llama_cpp(folder, kind, theirs, None if name in SEEING else rule, target)
            except Exception as error:  # it has faults of its own; there is nothing to compare then
                sys.stdout.write(f"{name:30} {kind:5} llama.cpp fails: {error!r:.80}\n")
                continue
            model["digests"][kind] = hashlib.sha256(theirs.read_bytes()).hexdigest()
            for beside in sorted(work.glob("lora-*-theirs.gguf")):  # adapters
                ours_beside = beside.with_name(beside.name.replace("theirs", "ours"))
                digest = hashlib.sha256(beside.read_bytes()).hexdigest()
                model.setdefault("adapters", {})[beside.name.removesuffix("theirs.gguf")] = digest
                if hashlib.sha256(ours_beside.read_bytes()).hexdigest() != digest:
                    sys.stdout.write(f"{name:30} {beside.name} DIFFERENT\n")
                beside.unlink()
            same = hashlib.sha256(ours.read_bytes()).hexdigest() == model["digests"][kind]
            sys.stdout.write(f"{name:30} {kind:5} {'equal' if same else 'DIFFERENT'}\n")
            sys.stdout.flush()
            if not same and os.environ.get("KEEP"):
                shutil.copy(ours, Path(os.environ["KEEP"]) / f"{name}-{kind}-ours.gguf")
                shutil.copy(theirs, Path(os.environ["KEEP"]) / f"{name}-{kind}-theirs.gguf")
    shutil.rmtree(work)
    GOLDEN.write_bytes(gzip.compress(json.dumps(facts, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    main()
