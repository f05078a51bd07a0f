"""Every exception that llamacpu raises on purpose.

LlamaCpuError
├── GGUFError        the file is not a readable GGUF file (also a ValueError)
├── ModelError       a sound GGUF file that does not describe a model this version runs (also a ValueError)
├── ContextOverflow  more tokens than the session's context holds (also a ValueError)
├── TemplateError    a chat template that cannot be rendered (also a ValueError)
├── GrammarError     a grammar or JSON schema that cannot be used (also a ValueError)
├── SessionError     a saved session that is damaged, or belongs to another model (also a ValueError)
└── Cancelled        the caller stopped the work: Ctrl-C, close(), a timeout or a dropped client

Wrong arguments of a call are plain ValueError and TypeError, as everywhere in Python.
"""

__all__ = [
    "Cancelled",
    "ContextOverflow",
    "GGUFError",
    "GrammarError",
    "LlamaCpuError",
    "ModelError",
    "SessionError",
    "TemplateError",
]


class LlamaCpuError(Exception):
    """Base of every error that llamacpu raises on purpose."""


class GGUFError(LlamaCpuError, ValueError):
    """The file cannot be opened, or it is not a sound GGUF file."""


class ModelError(LlamaCpuError, ValueError):
    """The GGUF file is sound but does not describe a model that this version can run."""


class ContextOverflow(LlamaCpuError, ValueError):  # noqa: N818 (the public name says what happened)
    """More tokens than the context of the session holds."""


class TemplateError(LlamaCpuError, ValueError):
    """The chat template cannot be compiled or rendered within its limits."""


class GrammarError(LlamaCpuError, ValueError):
    """The grammar or JSON schema cannot be compiled within its limits."""


class SessionError(LlamaCpuError, ValueError):
    """The file is no sound saved session, or it is one of another model or of a newer version."""


class Cancelled(LlamaCpuError):  # noqa: N818 (the public name says what happened)
    """The work was stopped before it was done; the session is as it was before the call."""
