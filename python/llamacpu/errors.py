"""Every exception that llamacpu raises on purpose.

LlamaCpuError
├── GGUFError        the file is not a readable GGUF file (also a ValueError)
├── ModelError       a valid GGUF file that does not describe a model this version can run (also a ValueError)
├── ContextOverflow  more tokens than the session's context holds (also a ValueError)
├── CheckpointError  a checkpoint (safetensors, PyTorch) that is damaged or not supported (also a ValueError)
├── TemplateError    a chat template that cannot be rendered (also a ValueError)
├── GrammarError     a grammar or JSON schema that cannot be used (also a ValueError)
├── SessionError     a saved session that is damaged or belongs to another model (also a ValueError)
├── PictureError     a picture that cannot be read or is not allowed, or a model without image input (also a ValueError)
├── StoreError       the model that a name refers to cannot be found, downloaded or stored (also a ValueError)
├── TrainingError    training data, settings or a checkpoint of a training that cannot be used (also a ValueError)
├── Overloaded       an engine has as many requests waiting as it accepts; `retry_after` says when to try again
└── Cancelled        the caller stopped the work: Ctrl-C, close(), a timeout or a client that disconnected

Wrong arguments raise plain ValueError and TypeError, as everywhere in Python.
"""

__all__ = [
    "Cancelled",
    "CheckpointError",
    "ContextOverflow",
    "GGUFError",
    "GrammarError",
    "LlamaCpuError",
    "ModelError",
    "Overloaded",
    "PictureError",
    "SessionError",
    "StoreError",
    "TemplateError",
    "TrainingError",
]


class LlamaCpuError(Exception):
    """Base of every error that llamacpu raises on purpose. Lone surrogates in its message are escaped."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(_printable(argument) for argument in arguments))


def _printable(argument: object) -> object:
    if not isinstance(argument, str) or argument.isascii():
        return argument
    return argument.encode("utf-8", "backslashreplace").decode()


class GGUFError(LlamaCpuError, ValueError):
    """The file cannot be opened or is not a valid GGUF file."""


class ModelError(LlamaCpuError, ValueError):
    """The GGUF file is valid but does not describe a model that this version can run."""


class CheckpointError(LlamaCpuError, ValueError):
    """A checkpoint of another program (safetensors, PyTorch) is damaged, incomplete or not supported."""


class ContextOverflow(LlamaCpuError, ValueError):  # noqa: N818 (the public name says what happened)
    """There are more tokens than the session's context holds."""


class TemplateError(LlamaCpuError, ValueError):
    """The chat template cannot be compiled or rendered within its limits."""


class GrammarError(LlamaCpuError, ValueError):
    """The grammar or JSON schema cannot be compiled within its limits."""


class SessionError(LlamaCpuError, ValueError):
    """The file is not a valid saved session, or it belongs to another model or a newer version."""


class PictureError(LlamaCpuError, ValueError):
    """A picture cannot be read, is larger than allowed or not allowed at all, or the model sees no pictures."""


class StoreError(LlamaCpuError, ValueError):
    """The model that a name refers to cannot be found, downloaded or stored.

    missing: no model of this name exists where it was looked for.
    """

    def __init__(self, *arguments: object, missing: bool = False) -> None:
        super().__init__(*arguments)
        self.missing = missing


class TrainingError(LlamaCpuError, ValueError):
    """The training data, the settings or a checkpoint of a training cannot be used, or the training failed."""


class Overloaded(LlamaCpuError):  # noqa: N818 (the public name says what happened)
    """An engine's queue is full: no work was started.

    retry_after  seconds after which a new attempt is likely to be accepted (at least 1)
    scope        "engine" if the whole queue is full, "client" if only this client has too many requests in it
    """

    def __init__(self, message: str, retry_after: float = 1.0, scope: str = "engine") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.scope = scope


class Cancelled(LlamaCpuError):  # noqa: N818 (the public name says what happened)
    """The work was stopped before it was done; the session is as it was before the call."""
