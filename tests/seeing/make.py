"""Trains the tiny model in this folder, which sees: it names the shape and the colors of a drawing, and nothing else.

    python tests/seeing/make.py FOLDER [--start EARLIER]
    llamacpu convert FOLDER -o tests/seeing/seeing.gguf --type q8_0
    llamacpu convert FOLDER --mmproj -o tests/seeing/mmproj-seeing.gguf --type q8_0

FOLDER is a checkpoint in the form of Idefics 3: pictures of 48 x 48 pixels, 9 embeddings, a quarter of a million
parameters. The files here took four runs, a quarter of an hour of one core: 900 steps of the encoder alone and 600 of
all, 700 and 400, then 600 and 500 of all. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from drawings import COLORS, SHAPES, Drawing

# What splits a text into words: that of Llama 3, which runtimes know by name.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIDE, PATCH, MERGE, ROWS = 48, 8, 2, 9
WIDTH = 64
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
VOCABULARY = 448
CONTROL_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>",
    "<fake_token_around_image>", "<global-img>",
)  # fmt: skip
TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' }}
    {%- if message.content is string %}{{- message.content }}{% else %}
        {%- for part in message.content %}
            {{- '<image>' if part.type == 'image' else part.text }}
        {%- endfor %}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
WHAT = ("What is this?", "What do you see?", "Describe the picture.", "What is in the picture?")


def answers(drawing: Drawing, random: np.random.Generator) -> Iterator[tuple[str, str]]:
    """A first question and its answer, and sometimes another one."""
    questions = [
        (str(random.choice(WHAT)), drawing.sentence),
        ("What color is it?", f"It is {drawing.color}."),
        ("What shape is it?", f"It is a {drawing.shape}."),
        ("What color is the background?", f"It is {drawing.background}."),
    ]
    first = int(random.choice(4, p=(0.55, 0.15, 0.15, 0.15)))
    yield questions[first]
    if random.random() < 0.5:
        yield questions[int(random.integers(4))]


def pixels_of(drawing: Drawing) -> np.ndarray:
    """The picture as the encoder reads it: float32[3, side, side]."""
    small = np.asarray(drawing.image(SIDE), np.float32) / 255
    return ((small - 0.5) / 0.5).transpose(2, 0, 1)


def make_tokenizer(random: np.random.Generator) -> Tokenizer:
    """A byte-level BPE vocabulary of what the model reads and says."""
    texts = [text for _ in range(500) for pair in answers(Drawing.by_chance(random), random) for text in pair]
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL_TOKENS), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([*texts, "user", "assistant", "\n\n"], trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    return tokenizer


def batch(random: np.random.Generator, size: int, tokenizer: Tokenizer) -> tuple[torch.Tensor, ...]:
    """Pixels, ids and labels of conversations."""

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    pixels, ids, labels = [], [], []
    for _ in range(size):
        drawing = Drawing.by_chance(random)
        pixels.append(pixels_of(drawing))
        said, learned = encode("<|begin_of_text|>"), [-100]
        seen = "<fake_token_around_image><global-img>" + "<image>" * ROWS + "<fake_token_around_image>"
        for question, answer in answers(drawing, random):
            asked = encode(f"<|start_header_id|>user<|end_header_id|>\n\n{seen}{question}<|eot_id|>")
            asked += encode("<|start_header_id|>assistant<|end_header_id|>\n\n")
            answered = encode(f"{answer}<|eot_id|>")
            said += asked + answered
            learned += [-100] * len(asked) + answered
            seen = ""
        ids.append(said)
        labels.append(learned)
    longest = max(map(len, ids))
    end = tokenizer.token_to_id("<|eot_id|>")
    padded = [one + [end] * (longest - len(one)) for one in ids]
    masked = [one + [-100] * (longest - len(one)) for one in labels]
    return torch.from_numpy(np.stack(pixels)), torch.tensor(padded), torch.tensor(masked)


def make_model(tokenizer: Tokenizer) -> Any:
    """The model before training."""
    size = tokenizer.get_vocab_size()
    return Idefics3ForConditionalGeneration(Idefics3Config(
        text_config={
            "model_type": "llama", "vocab_size": size, "hidden_size": WIDTH, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 1024, "pad_token_id": 0, "tie_word_embeddings": True, **TEXT,
            "bos_token_id": tokenizer.token_to_id("<|begin_of_text|>"),
            "eos_token_id": tokenizer.token_to_id("<|eot_id|>"),
        },
        vision_config={**VISION, "image_size": SIDE, "patch_size": PATCH}, scale_factor=MERGE,
        image_token_id=tokenizer.token_to_id("<image>"), pad_token_id=0, tie_word_embeddings=True,
    ))  # fmt: skip


def steps(parameters: Any, count: int, peak: float = 2e-3) -> Iterator[Any]:
    """The loop of training: takes a loss for each step that it asks for."""
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=count, pct_start=0.1)
    started = time.monotonic()
    for step in range(count):
        loss = yield step
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.4f}, {time.monotonic() - started:.0f} s", flush=True)


def train_encoder(model: Any, random: np.random.Generator, count: int) -> None:
    """Teach the encoder alone first: a linear classifier names the drawing from the embeddings."""
    heads = torch.nn.Linear(ROWS * WIDTH, 2 * len(COLORS) + len(SHAPES))
    encoder = [*model.model.vision_model.parameters(), *model.model.connector.parameters(), *heads.parameters()]
    parts = (len(COLORS), len(COLORS), len(SHAPES))
    loop = steps(encoder, count)
    next(loop)
    for _ in range(count):
        drawings = [Drawing.by_chance(random) for _ in range(64)]
        pixels = torch.from_numpy(np.stack([pixels_of(drawing) for drawing in drawings]))
        names = list(COLORS)
        wanted = torch.tensor([
            (names.index(one.background), names.index(one.color), SHAPES.index(one.shape)) for one in drawings
        ])  # fmt: skip
        hidden = model.model.connector(model.model.vision_model(pixel_values=pixels).last_hidden_state)
        scores = heads(hidden.flatten(1)).split(parts, 1)
        loss = sum(torch.nn.functional.cross_entropy(scores[part], wanted[:, part]) for part in range(3))
        try:
            loop.send(loss)
        except StopIteration:
            return


def train(model: Any, random: np.random.Generator, count: int, tokenizer: Tokenizer) -> None:
    """Train the whole model on pictures that are drawn as they are needed."""
    loop = steps(list(model.parameters()), count)
    next(loop)
    for _ in range(count):
        pixels, ids, labels = batch(random, 48, tokenizer)
        try:
            loop.send(model(input_ids=ids, pixel_values=pixels[:, None], labels=labels).loss)
        except StopIteration:
            return


def save(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """The checkpoint, as transformers reads it."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "chat_template": TEMPLATE}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    pictures = {
        "image_processor_type": "Idefics3ImageProcessor", "do_image_splitting": False, "size": {"longest_edge": SIDE},
        "max_image_size": {"longest_edge": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures, indent=1))


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder-steps", type=int, default=900)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--start", type=Path, help="go on from the checkpoint in this folder")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    if options.start is None:
        tokenizer = make_tokenizer(random)
        model = make_model(tokenizer)
    else:
        random = np.random.default_rng()
        tokenizer = Tokenizer.from_file(str(options.start / "tokenizer.json"))
        model = Idefics3ForConditionalGeneration.from_pretrained(options.start)
    print(f"{sum(values.numel() for values in model.parameters()) / 1e6:.2f} million parameters", flush=True)
    if options.encoder_steps:
        train_encoder(model, random, options.encoder_steps)
    train(model, random, options.steps, tokenizer)
    save(model, tokenizer, options.folder)


if __name__ == "__main__":
    main()
