"""Continue a prompt: text is produced piece by piece, and a result reports how it went.

generation = generate(model, "Once upon a time", max_tokens=50)
for piece in generation:
    print(piece, end="")
print(generation.result.finish_reason)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, cast

from llamacpu.arguments import Kinds, check_kinds, described, flag, function, integer, listed, number, texts, token_ids
from llamacpu.drafting import Draft, FunctionDraft, ModelDraft, NGramDraft
from llamacpu.drafting.draft import ProposeTokens
from llamacpu.engine.interfaces import CancelToken, ModelLike, SessionLike, preset_of
from llamacpu.engine.pictures import MixedTokens
from llamacpu.errors import ModelError
from llamacpu.generation.context_window import Overflow, fit_prompt
from llamacpu.generation.request import LogitsProcessor, PromptProgress, Request, StoppingCriterion
from llamacpu.generation.result import GeneratedToken, GenerationResult, Timings
from llamacpu.generation.stream import Generation
from llamacpu.multimodal.rows import PictureProgress
from llamacpu.multimodal.sequences import text_ids
from llamacpu.sampling import Sampler, Sampling
from llamacpu.text.stop_strings import StopStrings

__all__ = ["CancelToken", "GeneratedToken", "Generation", "GenerationResult", "Timings", "generate"]

Drafts: TypeAlias = Literal["auto"] | Draft | ModelLike | ProposeTokens | None
"""What `draft` accepts: "auto", a `Draft`, a small model, a function that proposes tokens, or None."""
_KINDS: Kinds = {
    integer: ("max_tokens", "log_probabilities", "keep"),
    number: ("timeout",),
    flag: ("ignore_end", "show_special"),
    texts: ("stop",),
    listed: ("logits_processors", "stopping_criteria"),
    function: ("on_token", "on_prompt", "on_picture"),
}


def generate(
    source: ModelLike | SessionLike,
    prompt: str | Sequence[int],
    *,
    max_tokens: int | None = None,
    sampling: Sampling | Sampler | None = None,
    stop: str | Iterable[str] = (),
    logits_processors: Iterable[LogitsProcessor] = (),
    stopping_criteria: Iterable[StoppingCriterion] = (),
    on_token: Callable[[GeneratedToken], None] | None = None,
    on_prompt: PromptProgress | None = None,
    on_picture: PictureProgress | None = None,
    log_probabilities: int | None = None,
    ignore_end: bool = False,
    show_special: bool = False,
    overflow: Overflow = "error",
    keep: int | None = None,
    draft: Drafts = "auto",
    cancel: CancelToken | None = None,
    timeout: float | None = None,
) -> Generation:
    """Continue a prompt; iterate over the returned `Generation` for the pieces of text.

    source: a model (a session is created for this call) or a session. The prefix that a session shares with the
        prompt is reused and the rest is discarded, so pass the whole conversation as the prompt every time.
    prompt: text (encoded with the model's start token; control tokens in it are treated as text), token ids, or ids
        with pictures (`llamacpu.engine.pictures.MixedTokens`).
    max_tokens: None continues until the model ends or the context is full, unless the model's name comes with a limit.
    sampling: settings, or a `Sampler` that continues its random stream; None uses what the file recommends, or the
        settings that came with the model's name.
    stop: texts that end the generation and do not appear in it; if none are given, those that came with the model's
        name.
    on_prompt: called with the number of tokens of the prompt that are processed, and of all. on_picture: the same for
        its pictures, which are encoded before (2.5 done: the third one half).
    log_probabilities: None for none; n for those of each token and of the n most likely tokens at its position.
    ignore_end: forbids the end-of-text tokens, so that generation continues.
    show_special: control tokens appear as text.
    overflow: a prompt longer than the context raises ContextOverflow before any work ("error") or loses its middle
        ("truncate"); when the context is full, generation ends, or ("shift") the oldest half is discarded. The
        result reports how many tokens were dropped. keep: how many initial tokens are never dropped (None: only the
        start token; -1: the whole prompt, as far as the context leaves room for an answer).
    draft: the source of proposals for speculative decoding, which is faster where proposals are right and never
        changes the text. "auto" looks up what followed the last tokens earlier in the text (`NGramDraft`), and only
        as long as that is faster; a `Model` (or `ModelDraft`) with the same vocabulary, or a function
        (ids so far) -> ids, makes the proposals itself; None is off. While iterating, the session may hold unverified
        tokens.
    cancel, timeout: end the generation from any thread, or after this many seconds; also within a long prompt.

    Raises TypeError or ValueError for invalid arguments, ContextOverflow, and ModelError for a model that cannot
    generate text or a draft model with another vocabulary; while iterating, also whatever the callbacks raise.
    """
    check_kinds(locals(), _KINDS)
    if sampling is not None and not isinstance(sampling, (Sampling, Sampler)):
        raise TypeError(f"sampling is {described(sampling)}; expected Sampling(temperature=0.8, ...) or a Sampler")
    if cancel is not None and not isinstance(cancel, CancelToken):
        raise TypeError(f"cancel is {described(cancel)}; expected a CancelToken")
    session = _session_of(source)
    _check_writes(session.model)
    tokenizer = session.model.tokenizer
    preset = preset_of(session.model)
    max_tokens = preset.max_tokens if max_tokens is None else max_tokens
    ids = _prompt_ids(session, prompt)
    if max_tokens is not None and max_tokens < 0:
        raise ValueError(f"max_tokens is {max_tokens}; expected 0 or more, or None for no limit")
    if overflow not in ("error", "truncate", "shift"):
        raise ValueError(f'overflow is {overflow!r}; expected "error", "truncate" or "shift"')
    if log_probabilities is not None and not 0 <= log_probabilities <= session.model.vocab_size:
        raise ValueError(f"log_probabilities is {log_probabilities}; expected 0 up to the size of the vocabulary")
    if keep is None:
        keep = int(ids[0] == tokenizer.bos)
    elif keep == -1:
        keep = len(ids)
    elif keep < 0:
        raise ValueError(f"keep is {keep}; expected a number of tokens, -1 for the whole prompt, or None")
    fitted = fit_prompt(ids, session.context, overflow, keep, max_tokens)
    if not isinstance(sampling, Sampler):
        recommended = Sampling.for_model(session.model.metadata, preset.sampling)
        settings = recommended if sampling is None else sampling
        sampling = Sampler(settings, session.model.vocab_size, lambda token: tokenizer.decode([token]))
    drafts = draft_from(draft)
    if drafts is not None:
        drafts.check(session)
    request = Request(
        prompt=fitted if isinstance(fitted, MixedTokens) else tuple(fitted),
        max_tokens=max_tokens,
        overflow=overflow,
        keep=min(keep, len(fitted)),
        ignore_end=ignore_end,
        show_special=show_special,
        log_probabilities=log_probabilities,
        logits_processors=tuple(logits_processors),
        stopping_criteria=tuple(stopping_criteria),
        on_token=on_token,
        on_prompt=on_prompt,
        on_picture=on_picture,
        dropped_tokens=len(ids) - len(fitted),
        draft=drafts,
    )
    return Generation(session, request, sampling, StopStrings(stop or preset.stop), cancel, timeout)


def draft_from(draft: Drafts) -> Draft | None:
    """The source of drafts for the argument `draft` of `generate`. Raises ValueError or TypeError if it is invalid."""
    if draft is None or isinstance(draft, Draft):
        return draft
    if isinstance(draft, str):
        if draft != "auto":
            raise ValueError(f'draft is {draft!r}; expected "auto", a Draft, a Model, a function or None')
        return NGramDraft()
    if hasattr(draft, "session"):
        return ModelDraft(cast(ModelLike, draft))
    if not callable(draft):
        raise TypeError(f'draft is a {type(draft).__name__}; expected "auto", a Draft, a Model, a function or None')
    return FunctionDraft(draft)


def _session_of(source: ModelLike | SessionLike) -> SessionLike:
    # Anything that behaves like a session is accepted: programs wrap them, tests replace them.
    return cast(SessionLike, source) if hasattr(source, "forward") else source.session()


def _check_writes(model: ModelLike) -> None:
    if not model.config.get("output", True):
        raise ModelError(
            f"the model ({model.config['architecture']}) makes vectors of texts and cannot write; use its embeddings "
            "(Model.embed, llamacpu embed), or open a model that generates text"
        )


def _prompt_ids(session: SessionLike, prompt: str | Sequence[int]) -> Sequence[int]:
    tokenizer = session.model.tokenizer
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt)
        if tokenizer.add_eos:
            # A prompt is to be continued, so it must not end with the end-of-text token.
            ids.pop()
    elif isinstance(prompt, MixedTokens):
        _check_ids(text_ids(prompt), session.model.vocab_size)
        return prompt
    else:
        ids = token_ids("prompt", prompt)
    if not ids and tokenizer.bos is not None:
        ids = [tokenizer.bos]
    if not ids:
        raise ValueError("the prompt is empty and the model has no start token; expected at least one token")
    _check_ids(ids, session.model.vocab_size)
    return ids


def _check_ids(ids: Sequence[int], vocabulary: int) -> None:
    for token in ids:
        if not 0 <= token < vocabulary:
            raise ValueError(f"the prompt holds token {token}; expected ids from 0 to {vocabulary - 1}")
