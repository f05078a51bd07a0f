"""The settings of the sampler, with llama.cpp's defaults."""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from llamacpu.arguments import meant

SAMPLER_LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typical_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
}
"""One-letter codes for the steps, as in llama.cpp's `--sampler-seq`."""

DEFAULT_SAMPLERS = tuple(SAMPLER_LETTERS.values())
"""The steps in their default order."""

_OTHER_NAMES = {"typ_p": "typical_p", "typical": "typical_p", "temp": "temperature", "adaptive_p": "adaptive_p"}
MAX_SEED = 0xFFFFFFFF


def seed_of(given: Any, place: int = 0) -> int | None:
    """The seed given by an integer of up to 64 bits: its low 32 bits, as in llama.cpp; None draws one at random.

    The low bits 0xFFFFFFFF (those of -1) also ask for a random seed.

    place: index of this text among the several of one request; each gets its own seed.

    Raises ValueError for anything but a whole number of up to 64 bits, signed or unsigned.
    """
    if given is None:
        return None
    seed = _integer("seed", given)
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"seed is {seed}; expected a number of up to 64 bits, or None or -1 for a random one")
    seed &= MAX_SEED
    return None if seed == MAX_SEED else (seed + place) % MAX_SEED


_METADATA_NAMES = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "sequence": "samplers",
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen from the logits. Every value is checked; an invalid one raises ValueError.

    temperature: the logits are divided by it; 0 or less takes the most likely token (lowest id on ties).
    top_k: keep the k most likely tokens; 0 or less keeps all.
    top_p: keep the fewest most likely tokens whose total probability reaches it (Holtzman et al., arXiv:1904.09751).
    min_p: keep tokens at least this fraction as likely as the most likely one (Nguyen et al., arXiv:2407.01082).
    typical_p: keep the tokens closest to the expected surprise up to this total probability (Meister et al.,
        arXiv:2202.00666).
    top_n_sigma: keep logits within n standard deviations of the largest; negative is off (arXiv:2411.07641).
    xtc_probability, xtc_threshold: with this probability, remove all tokens at or above the threshold except the least
        likely of them.
    dynatemp_range, dynatemp_exponent: temperature between temperature ± range, growing with the entropy.
    repeat_penalty, frequency_penalty, presence_penalty: penalize the last penalty_last_n tokens (including the prompt;
        -1 is the whole history, 0 is off); the frequency penalty grows with the count, the presence penalty does not.
    dry_multiplier, dry_base, dry_allowed_length, dry_last_n, dry_sequence_breakers: penalize continuing a repeated
        sequence longer than allowed; matches do not cross the breakers (texts); dry_last_n works like penalty_last_n.
    mirostat: 0 is off; 1 or 2 holds the surprise of the text at mirostat_tau bits with learning rate mirostat_eta
        (Basu et al., arXiv:2007.14966); only logit_bias and temperature then act in addition.
    adaptive_target, adaptive_decay: prefer tokens near a target probability, steering the running average of the
        chosen tokens' probabilities to it; a negative target is off.
    logit_bias: token id -> value added to its logit (-inf forbids the token).
    samplers: the steps in order, as names, one string "top_k;temperature", or letters "kt".
    min_keep: truncating steps (not top_k) leave at least this many tokens.
    seed: 0 to 2**32 - 2, or None for a random one (then in `Sampler.seed`); `seed_of` says how other numbers are taken.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    samplers: tuple[str, ...] = DEFAULT_SAMPLERS
    min_keep: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every value, and convert lists and strings to their canonical form."""
        for name in _REAL_FIELDS:
            object.__setattr__(self, name, _real(name, getattr(self, name)))
        for name in _INTEGER_FIELDS:
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; expected {_range_text(low, high)}")
        if self.repeat_penalty <= 0:
            raise ValueError(f"repeat_penalty is {self.repeat_penalty!r}; expected a number above 0 (1 is off)")
        if self.mirostat not in (0, 1, 2):
            raise ValueError(f"mirostat is {self.mirostat!r}; expected 0 (off), 1 or 2")
        object.__setattr__(self, "seed", seed_of(self.seed))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "samplers", _sampler_names(self.samplers))
        object.__setattr__(self, "dry_sequence_breakers", _breakers(self.dry_sequence_breakers))

    @classmethod
    def for_model(
        cls, metadata: Mapping[str, Any], preset: Mapping[str, Any] | None = None, **given: Any
    ) -> "Sampling":
        """The settings for a model, merged from three sources.

        Settings given here take precedence over those that came with the model's name (`preset`: fields of this
        class), and these over the GGUF file's recommendations (`general.sampling.*`).

        An invalid recommendation is ignored, so a file cannot make generation fail this way.
        """
        settings = cls(**given)
        for name, value in (preset or {}).items():
            if name in given:
                continue
            try:
                settings = cls(**{**given, name: value})
            except (TypeError, ValueError):
                continue
            given[name] = value
        for key, name in _METADATA_NAMES.items():
            value = metadata.get(f"general.sampling.{key}")
            if value is None or name in given:
                continue
            try:
                cls(**{name: value})
            except (TypeError, ValueError):
                continue
            given[name] = value
            settings = cls(**given)
        return settings

    @property
    def greedy(self) -> bool:
        """Whether the temperature alone means that the most likely token is always chosen."""
        return self.temperature <= 0 and self.dynatemp_range <= 0 and self.mirostat == 0 and self.adaptive_target < 0


if not TYPE_CHECKING:
    _initialize = Sampling.__init__

    @functools.wraps(_initialize)
    def _with_known_names(self, *positional, **given):
        known = [entry.name for entry in fields(Sampling)]
        for name in given:
            if name not in known:
                other = _OTHER_NAMES.get(name)
                hint = meant(name, known) if other not in known else f"; did you mean {other!r}?"
                raise TypeError(f"Sampling takes no argument {name!r}{hint}")
        _initialize(self, *positional, **given)

    Sampling.__init__ = _with_known_names


_INFINITY = math.inf
_REAL_FIELDS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "dynatemp_range",
    "dynatemp_exponent",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "dry_multiplier",
    "dry_base",
    "mirostat_tau",
    "mirostat_eta",
    "adaptive_target",
    "adaptive_decay",
)
_INTEGER_FIELDS = ("top_k", "penalty_last_n", "dry_allowed_length", "dry_last_n", "mirostat", "min_keep")
_RANGES = (
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("typical_p", 0, 1),
    ("xtc_probability", 0, 1),
    ("xtc_threshold", 0, 1),
    ("dynatemp_range", 0, _INFINITY),
    ("dynatemp_exponent", 0, _INFINITY),
    ("penalty_last_n", -1, _INFINITY),
    ("dry_multiplier", 0, _INFINITY),
    ("dry_base", 0, _INFINITY),
    ("dry_allowed_length", 0, _INFINITY),
    ("dry_last_n", -1, _INFINITY),
    ("mirostat_tau", 0, _INFINITY),
    ("mirostat_eta", 0, _INFINITY),
    ("adaptive_target", -_INFINITY, 1),
    ("adaptive_decay", 0, 0.99),
    ("min_keep", 0, _INFINITY),
)


def _range_text(low: float, high: float) -> str:
    if high == _INFINITY:
        return f"{low} or more"
    if low == -_INFINITY:
        return f"at most {high}"
    return f"{low} to {high}"


def _real(name: str, value: object) -> float:
    if isinstance(value, (str, bytes, bool)) or value is None:
        raise ValueError(f"{name} is {value!r}; expected a number")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {value!r}; expected a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}; expected a finite number")
    return number


def _integer(name: str, value: object) -> int:
    number = _real(name, value)
    if number != int(number):
        raise ValueError(f"{name} is {value!r}; expected a whole number")
    return value if isinstance(value, int) else int(number)


def _bias(given: Mapping[int, float]) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise ValueError(f"logit_bias is a {type(given).__name__}; expected a mapping of token ids to numbers")
    bias = {}
    for token, value in given.items():
        number = _integer("a token id of logit_bias", token)
        if number < 0:
            raise ValueError(f"logit_bias names token {number}; expected ids of 0 or more")
        forbidden = isinstance(value, float) and value == -_INFINITY
        bias[number] = -_INFINITY if forbidden else _real(f"the bias of token {number}", value)
    return bias


def _sampler_names(given: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        if ";" not in given and given and all(letter in SAMPLER_LETTERS for letter in given):
            return tuple(SAMPLER_LETTERS[letter] for letter in given)
        given = [name.strip() for name in given.split(";") if name.strip()]
    names = []
    for name in given:
        known = _OTHER_NAMES.get(name, name)
        if known not in DEFAULT_SAMPLERS and known != "adaptive_p":
            raise ValueError(f"samplers names {name!r}; expected some of {', '.join(DEFAULT_SAMPLERS)}")
        names.append(known)
    return tuple(names)


def _breakers(given: Iterable[str]) -> tuple[str, ...]:
    breakers = (given,) if isinstance(given, str) else tuple(given)
    for breaker in breakers:
        if not isinstance(breaker, str) or not breaker:
            raise ValueError(f"dry_sequence_breakers holds {breaker!r}; expected texts that are not empty")
    return breakers
