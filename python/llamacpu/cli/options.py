"""Options shared by several commands, and their processing."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from click.shell_completion import CompletionItem

from llamacpu.files import is_file

if TYPE_CHECKING:
    from llamacpu.drafting import Draft
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import Load
    from llamacpu.model import Model
    from llamacpu.sampling import Sampling
    from llamacpu.store.entries import Entry


def _cycle(percent: float | None) -> DutyCycle | None:
    from llamacpu.engine.duty import cycle_of

    return cycle_of(percent)


Function = TypeVar("Function", bound=Callable[..., Any])


class Decorator(Protocol):
    """A decorator that adds an option to the function of a command."""

    def __call__(self, function: Function, /) -> Function: ...


MOST_TOKENS = 1 << 30
"""The longest context of a session, in tokens."""
MOST_THREADS = 1024
"""The maximum number of threads, more than the processors of any supported machine."""


def complete_files(_context: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Shell completion for paths."""
    return [CompletionItem(begun, type="file")]


threads: Decorator = click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1, max=MOST_THREADS),
    help="Number of threads. [default: from the CPU affinity, the container quota and the cores]",
)
priority: Decorator = click.option(
    "--priority",
    type=click.Choice(["low", "normal", "high"]),
    help="Scheduling priority: low leaves the processors to other programs; high goes before them and needs the right "
    "to. [default: as started]",
)
duty: Decorator = click.option(
    "--duty",
    type=click.FloatRange(min=0, max=100, min_open=True),
    metavar="PERCENT",
    callback=lambda _context, _option, given: _cycle(given),
    help="Compute for at most this share of the time, with pauses between steps, to save battery and heat.",
)
mmproj: Decorator = click.option(
    "--mmproj",
    metavar="FILE",
    shell_complete=complete_files,
    help="Vision encoder, for a model with image input. [default: the one that came with the model or is beside it]",
)
image_tokens: Decorator = click.option(
    "--image-tokens",
    type=click.IntRange(min=1, max=MOST_TOKENS),
    help="Maximum number of tokens of a picture, for models that offer several sizes.",
)
image_crops: Decorator = click.option(
    "--image-crops",
    type=click.IntRange(min=0, max=16),
    default=0,
    help='Maximum number of crops of a long picture, shown beside the whole (Gemma 3\'s "pan and scan"; usual: 4).',
)
context: Decorator = click.option(
    "-c",
    "--context",
    type=click.IntRange(min=1, max=MOST_TOKENS),
    help="Maximum number of tokens in the conversation. [default: what the model was trained for]",
)
kv_type: Decorator = click.option(
    "--kv-type",
    type=click.Choice(["f32", "f16", "q8_0"]),
    default="f16",
    show_default=True,
    help="Storage type of the KV cache: 32 bits, 16 bits or about 8 bits a value.",
)
load: Decorator = click.option(
    "--no-mmap",
    "load",
    is_flag=True,
    callback=lambda _context, _option, given: "copy" if given else "map",
    help="Read the whole file into memory instead of mapping it; the file may then be changed or deleted.",
)
overrides: Decorator = click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=lambda _context, option, given: dict(_override(text, option) for text in given),
    help="Override metadata of the file, as in tokenizer.ggml.add_bos_token=false; may be repeated.",
)
draft_model: Decorator = click.option(
    "--draft-model",
    metavar="FILE",
    shell_complete=complete_files,
    help="Speculative decoding, the same text faster, with a drafter (DFlash, EAGLE-3, Gemma 4's "
    "assistant), a smaller model with the same vocabulary, or the layers for multi-token prediction in the model's "
    "own file (self).",
)
no_draft: Decorator = click.option("--no-draft", is_flag=True, help="Turn off speculative decoding.")
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")

_SAMPLING = (
    ("--temperature", float, "Randomness; 0 always takes the most likely token. [default: 0.8]"),
    ("--top-k", int, "Keep the k most likely tokens; 0 keeps all. [default: 40]"),
    ("--top-p", float, "Keep the most likely tokens up to this probability. [default: 0.95]"),
    ("--min-p", float, "Keep tokens at least this fraction as likely as the best. [default: 0.05]"),
    ("--typical-p", float, "Locally typical sampling up to this probability; 1 is off."),
    ("--top-n-sigma", float, "Keep logits within n standard deviations of the best; negative is off."),
    ("--repeat-penalty", float, "Make recent tokens less likely; 1 is off."),
    ("--repeat-last-n", int, "Number of tokens that count as recent; -1 means all. [default: 64]"),
    ("--presence-penalty", float, "Subtracted from the logits of recent tokens."),
    ("--frequency-penalty", float, "Subtracted from a logit for each recent occurrence of its token."),
    ("--dry-multiplier", float, "Strength of the penalty against repeated sequences (DRY); 0 is off."),
    ("--xtc-probability", float, "Probability of excluding the top choices (XTC); 0 is off."),
    ("--xtc-threshold", float, "Probability above which a token is a top choice. [default: 0.1]"),
    ("--dynatemp-range", float, "Temperature varies by this much with the entropy; 0 is off."),
    ("--mirostat", int, "Hold the surprise constant: version 1 or 2; 0 is off."),
    ("--mirostat-tau", float, "The surprise to hold, in bits. [default: 5]"),
    ("--mirostat-eta", float, "How quickly mirostat adjusts. [default: 0.1]"),
    ("--adaptive-target", float, "Prefer tokens of about this probability; negative is off."),
    ("--samplers", str, "The sampling steps in order, as names or letters. [default: edskypmxt]"),
    ("--seed", int, "Seed of the random numbers (32 bits); -1 draws one. [default: -1]"),
)
_FIELDS = {"repeat_last_n": "penalty_last_n"}
SAMPLING_NAMES = tuple(flag.removeprefix("--").replace("-", "_") for flag, _, _ in _SAMPLING)
"""Parameter names of the options that `sampling_options` adds."""


def utf8(_context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Callback of options that take text. Raises BadParameter for bytes that are not valid UTF-8."""
    for text in (value,) if isinstance(value, str) else value or ():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter("not UTF-8 text; give it in a file", param=option) from None
    return value


def stop_texts(_context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Callback of `--stop`. Raises BadParameter for an empty text and for one that is not valid UTF-8."""
    if "" in value:
        raise click.BadParameter("a text that ends the answer is empty; give at least one character", param=option)
    return tuple(utf8(_context, option, value))


def _override(given: str, option: click.Parameter) -> tuple[str, bool | int | float | str]:
    """Parse KEY=VALUE, or llama.cpp's KEY=TYPE:VALUE; without a type, the value's form determines it."""
    key, sign, text = given.partition("=")
    if not sign or not key:
        raise click.BadParameter(f"{given!r}; expected KEY=VALUE", param=option)
    kind, colon, rest = text.partition(":")
    kinds: dict[str, Callable[[str], bool | int | float | str]] = {
        "int": int, "float": float, "str": str, "bool": lambda word: {"true": True, "false": False}[word],
    }  # fmt: skip
    tried = [kinds[kind]] if colon and kind in kinds else list(kinds.values())
    text = rest if colon and kind in kinds else text
    for convert in tried if len(tried) == 1 else (kinds["bool"], int, float, str):
        with contextlib.suppress(ValueError, KeyError):
            return key, convert(text)
    raise click.BadParameter(f"{given!r}; {text!r} is no value of the type {kind}", param=option)


def field_of(name: str) -> str:
    """The field of `Sampling` that an option sets."""
    return _FIELDS.get(name, name)


def changed(sampling: Sampling, name: str, value: str) -> Sampling:
    """The settings with one option changed. Raises ValueError for a value that the option cannot have."""
    kind = next(kind for flag, kind, _ in _SAMPLING if flag == "--" + name.replace("_", "-"))
    try:
        given: Any = kind(value)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {value!r}; expected {expected}") from None
    return dataclasses.replace(sampling, **{field_of(name): given})


def sampling_options(function: Function) -> Function:
    """Add all options that set fields of `Sampling`."""
    for flag, kind, text in reversed(_SAMPLING):
        function = click.option(flag, type=kind, help=text)(function)
    return function


def sampling_of(metadata: Any, given: dict[str, Any], preset: dict[str, Any] | None = None) -> Sampling:
    """The sampling settings: given options take precedence over what the file recommends, and that over the defaults.

    given: option name -> value, None for an option that was not given. Raises UsageError for values that are invalid.
    """
    from llamacpu.sampling import Sampling

    settings = {field_of(name): value for name, value in given.items() if value is not None}
    try:
        return Sampling.for_model(metadata, preset, **settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


_NO_NAME = "the path of the model is empty; give the path of a .gguf file"


def named_file(name: str) -> Path:
    """The file of the model that a name refers to; a model that is not on this machine is downloaded."""
    return Path(name) if not name or is_file(name) else entry_of(name).path


def file_and_encoder(name: str) -> tuple[Path, Path | None]:
    """The file of the model that a name refers to, and the vision encoder that came with the name, if one did."""
    if not name or is_file(name):
        return Path(name), None
    entry = entry_of(name)
    return entry.path, entry.projector


def named_model(name: str, context: int | None = None, kv_type: str = "f16") -> str | Path:
    """The file of the model that a name refers to, or the name itself if settings or a vision encoder come with it.

    context, kv_type: those of the intended session, for the download plan.
    """
    if not name or is_file(name):
        return Path(name)
    entry = entry_of(name, context, kv_type)
    return entry.path if entry.manifest is None and entry.projector is None else name


def entry_of(name: str, context: int | None = None, kv_type: str = "f16") -> Entry:
    """The model that a name refers to; one that is not on this machine is downloaded, with a progress bar."""
    from llamacpu.cli.download_bar import DownloadBar, show
    from llamacpu.store.resolve import resolve

    bar = DownloadBar()
    try:
        return resolve(name, context=context, kv_type=kv_type, on_plan=show, on_progress=bar)
    finally:
        bar.clear()


def check_path(name: str | None) -> None:
    """Raise an error for a name that can only be a path but is not that of a model file; other names are ignored."""
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.store.names import local_path

    if name == "":
        raise click.ClickException(_NO_NAME)
    path = None if name is None else local_path(name)
    if path is None and name is not None and Path(name).is_dir():
        path = Path(name)
    if path is not None:
        GGUFFile(path).close()


@contextlib.contextmanager
def model_path(name: str | None, context: int | None = None, kv_type: str = "f16") -> Iterator[str | Path]:
    """The model to open: the one named, or the demo model that comes with the package."""
    if name is not None:
        if not name:
            raise click.ClickException(_NO_NAME)
        yield named_model(name, context, kv_type)
        return
    from importlib import resources

    with resources.as_file(resources.files("llamacpu") / "data" / "demo.gguf") as path:
        if not path.is_file():
            raise click.UsageError("no MODEL named, and this build has no demo model; name a .gguf file")
        click.echo("No model named: using the small demo model that comes with llamacpu.", err=True)
        yield path


def say_what_has_no_effect(model: Model) -> None:
    """Print a line to stderr that names the model's settings that have no effect here."""
    names = model.preset.without_effect
    if names:
        click.echo(f"Settings of this model that have no effect here: {', '.join(names)}.", err=True)


def say_what_stays_on_disk(model: Model) -> None:
    """Print a line to stderr if the model is larger than memory and therefore slow."""
    if model.memory_note:
        click.echo(model.memory_note, err=True)


@contextlib.contextmanager
def draft_source(
    path: str | None, no_draft: bool, model: Model, threads: int | None, load: Load
) -> Iterator[Draft | None]:
    """The draft source that `--draft-model` and `--no-draft` select.

    Raises ModelError for a draft model that does not match the model, UsageError if both options are given.
    """
    if no_draft and path is not None:
        raise click.UsageError("--draft-model and --no-draft; give one of them")
    from llamacpu.drafting import NGramDraft, open_draft

    if path is None:
        yield None if no_draft else NGramDraft()
        return
    draft = open_draft(model, path if path == "self" else named_file(path), threads, load)
    try:
        yield draft
    finally:
        draft.close()


def read_text(path: str) -> str:
    """The text of a file, or of stdin for "-". Raises ClickException if it is not UTF-8."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        name = "stdin" if path == "-" else path
        raise click.ClickException(f"{name} is not UTF-8 text (byte {error.start}); expected a text file") from None
