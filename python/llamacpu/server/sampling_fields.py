"""The sampling fields of a request, under the names that clients use for them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from llamacpu.server.bodies import Body

__all__ = ["LoraScale", "SamplingFields"]

Count = Annotated[int, Field(ge=-1, le=1 << 31)]
Share = Annotated[float, Field(ge=0, le=1)]
Breakers = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=32)]
Positive = Annotated[float, Field(ge=0)]

_OTHER_NAMES = {
    "repeat_last_n": "penalty_last_n",
    "dry_penalty_last_n": "dry_last_n",
    "repetition_penalty": "repeat_penalty",
    "typ_p": "typical_p",
}


class LoraScale(Body):
    """A LoRA adapter of the model, by its index, and its scale."""

    id: Annotated[int, Field(ge=0, le=1 << 31)]
    scale: float


class SamplingFields(Body):
    """Sampling parameters: those of the OpenAI API, and the additional ones of llama-server."""

    temperature: float | None = Field(None, ge=0, le=1000)
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    typ_p: Share | None = None
    top_n_sigma: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    frequency_penalty: float | None = Field(None, ge=-1000, le=1000)
    presence_penalty: float | None = Field(None, ge=-1000, le=1000)
    repeat_penalty: float | None = Field(None, gt=0, le=1000)
    repetition_penalty: float | None = Field(None, gt=0, le=1000)
    repeat_last_n: Count | None = None
    dry_multiplier: Positive | None = None
    dry_base: Positive | None = None
    dry_allowed_length: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    dry_penalty_last_n: Count | None = None
    dry_sequence_breakers: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=32)] | None
    ) = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    dynatemp_range: Positive | None = None
    dynatemp_exponent: Positive | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Positive | None = None
    mirostat_eta: Positive | None = None
    samplers: list[str] | str | None = None
    min_keep: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    ignore_eos: bool | None = None
    lora: Annotated[list[LoraScale], Field(max_length=256)] | None = None

    def sampling(self) -> dict[str, Any]:
        """Return the fields of `Sampling` that the request sets."""
        found: dict[str, Any] = {}
        for name in SamplingFields.model_fields:
            value = getattr(self, name)
            if value is not None and name not in ("ignore_eos", "lora"):
                found[_OTHER_NAMES.get(name, name)] = value
        return found
