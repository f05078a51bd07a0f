"""The folders where models are stored: one of our own, and those of other programs, which are only read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places", "offline", "places"]


@dataclass(frozen=True)
class Places:
    """Folders with models, whether or not they exist.

    own           LLAMACPU_MODELS, or the usual folder for a program's data; the only one that is written to
    ollama        Ollama's: OLLAMA_MODELS, or ~/.ollama/models and that of the system service
    hugging_face  the cache of the Hugging Face Hub: HF_HUB_CACHE, HF_HOME/hub, ...
    lm_studio     LM Studio's folder of downloads
    llama_cpp     llama.cpp's cache: LLAMA_CACHE, ...
    folders       folders with .gguf files listed in LLAMACPU_FOLDERS, separated as in PATH
    """

    own: Path
    ollama: tuple[Path, ...]
    hugging_face: tuple[Path, ...]
    lm_studio: tuple[Path, ...]
    llama_cpp: tuple[Path, ...]
    folders: tuple[Path, ...]


def places(environment: Mapping[str, str] | None = None) -> Places:
    """Return the folders that the environment names, and the usual ones where it names none."""
    env = os.environ if environment is None else environment
    home = _home(env)
    cache = _first(env, "XDG_CACHE_HOME") or home / ".cache"
    local = _first(env, "LOCALAPPDATA") or home / "AppData" / "Local"
    if sys.platform == "win32":
        own, llama_cpp = local / "llamacpu" / "models", local / "llama.cpp"
    elif sys.platform == "darwin":
        own = home / "Library" / "Application Support" / "llamacpu" / "models"
        llama_cpp = home / "Library" / "Caches" / "llama.cpp"
    else:
        own = (_first(env, "XDG_DATA_HOME") or home / ".local" / "share") / "llamacpu" / "models"
        llama_cpp = cache / "llama.cpp"
    ollama = _first(env, "OLLAMA_MODELS")
    hub = _first(env, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    hugging_face = _first(env, "HF_HOME")
    return Places(
        own=_first(env, "LLAMACPU_MODELS") or own,
        ollama=(ollama,) if ollama else (home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")),
        hugging_face=(hub or (hugging_face or cache / "huggingface") / "hub",),
        lm_studio=_lm_studio(home, cache),
        llama_cpp=(_first(env, "LLAMA_CACHE") or llama_cpp,),
        folders=tuple(_path(name, home) for name in env.get("LLAMACPU_FOLDERS", "").split(os.pathsep) if name),
    )


def offline(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether HF_HUB_OFFLINE or LLAMACPU_OFFLINE forbids using the network."""
    env = os.environ if environment is None else environment
    return any(
        env.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "LLAMACPU_OFFLINE")
    )


def _home(env: Mapping[str, str]) -> Path:
    given = env.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    if given:
        return Path(given)
    try:
        return Path.home()
    except RuntimeError:
        import tempfile

        return Path(tempfile.gettempdir())


def _path(text: str, home: Path) -> Path:
    return home / text[2:] if text.startswith(("~/", "~\\")) else home if text == "~" else Path(text)


def _first(env: Mapping[str, str], *names: str) -> Path | None:
    return next((_path(env[name], _home(env)) for name in names if env.get(name)), None)


def _lm_studio(home: Path, cache: Path) -> tuple[Path, ...]:
    found = [home / ".lmstudio" / "models", cache / "lm-studio" / "models"]
    try:
        settings = json.loads((home / ".lmstudio" / "settings.json").read_text(encoding="utf-8"))
        chosen = settings["downloadsFolder"]
        if isinstance(chosen, str) and chosen and Path(chosen) not in found:
            found.insert(0, Path(chosen))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return tuple(found)
