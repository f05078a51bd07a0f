"""Manifests in the layout of Ollama's store: which blobs a model consists of, and the settings that come with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamacpu.errors import StoreError
from llamacpu.store import parameters

__all__ = [
    "ADAPTER",
    "MODEL",
    "PROJECTOR",
    "Layer",
    "Manifest",
    "Preset",
    "blob_name",
    "hexadecimal",
    "preset_of",
    "read_manifest",
]

LARGEST = 4 << 20
"""The most bytes that a manifest, a template, a license or a list of parameters may have."""
MODEL, PROJECTOR, ADAPTER = "model", "projector", "adapter"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MEDIA_TYPE = "application/vnd.ollama.image."


def hexadecimal(digest: object, where: str) -> str:
    """Return the 64 digits of `sha256:...`. Raises StoreError otherwise, so that no digest names a file elsewhere."""
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise StoreError(f"{where}: {digest!r:.80} is no digest; expected sha256: and 64 hexadecimal digits")
    return match[1]


def blob_name(digits: str) -> str:
    """Return the file name of a blob."""
    return f"sha256-{digits}"


@dataclass(frozen=True)
class Layer:
    """A part of a model. kind: "model", "projector", "template", "system", "params", "license", "messages", ...

    path  where it is stored if not among the blobs, for our own models that refer to a file elsewhere
    """

    kind: str
    digits: str
    size: int
    path: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the layer as it appears in a manifest."""
        found = {"mediaType": _MEDIA_TYPE + self.kind, "size": self.size}
        return {**found, "digest": f"sha256:{self.digits}"} if self.path is None else {**found, "path": self.path}


@dataclass(frozen=True)
class Manifest:
    """The contents of a manifest."""

    layers: tuple[Layer, ...]
    config: Layer | None = None

    def only(self, kind: str) -> list[Layer]:
        """Return the layers of one kind, in order."""
        return [layer for layer in self.layers if layer.kind == kind]

    @property
    def blobs(self) -> list[Layer]:
        """The layers that are stored as blobs, including the configuration."""
        return [layer for layer in (*self.layers, self.config) if layer is not None and layer.path is None]

    def as_bytes(self) -> bytes:
        """Return the manifest as it is stored."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "layers": [layer.as_json() for layer in self.layers],
        }
        if self.config is not None:
            document["config"] = {
                **self.config.as_json(), "mediaType": "application/vnd.docker.container.image.v1+json",
            }  # fmt: skip
        return json.dumps(document).encode()


def read_manifest(data: bytes, where: str, *, own: bool = False) -> Manifest:
    """Check and read a manifest. own: it is from our own store, whose layers may refer to files elsewhere.

    Raises StoreError for an invalid manifest.
    """
    if len(data) > LARGEST:
        raise StoreError(f"{where}: a manifest of {len(data)} bytes; expected at most {LARGEST}")
    try:
        document = json.loads(data)
        listed, config = document["layers"], document.get("config")
        layers = tuple(_layer(row, where, own) for row in listed)
        return Manifest(layers, _layer(config, where, own) if config else None)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{where}: this is no manifest of a model ({type(error).__name__}); get it again") from None


def _layer(row: Mapping[str, Any], where: str, own: bool) -> Layer:
    size = row["size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise StoreError(f"{where}: a layer of {size!r:.40} bytes; expected its size")
    path = row.get("path") if own else None
    kind = str(row.get("mediaType", "")).rpartition(".")[2]
    if isinstance(path, str):
        return Layer(kind, "", size, path)
    return Layer(kind, hexadecimal(row["digest"], where), size)


@dataclass(frozen=True)
class Preset:
    """What comes with a model besides its weights.

    parameters  Ollama's options and their values, by name; "stop" is a list
    system      the system prompt that applies if none is given
    template    a Go template, for a model whose file has no chat template
    messages    (role, content): a conversation that precedes every other
    licenses    the texts of the licenses
    adapters    files of LoRA adapters that the model is used with
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    adapters: tuple[Path, ...] = ()

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters that are fields of `Sampling`."""
        return parameters.sampling_of(self.parameters)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return parameters.stops_of(self.parameters)

    @property
    def context(self) -> int | None:
        """The most tokens of a conversation; None for the model's training context."""
        return parameters.context_of(self.parameters)

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of an answer; None for no limit."""
        return parameters.limit_of(self.parameters)

    @property
    def without_effect(self) -> list[str]:
        """The names of the parameters that have no effect here."""
        return parameters.without_effect(self.parameters)

    def before(self, messages: Sequence[Any]) -> list[Any]:
        """Return a conversation preceded by the system prompt, unless it has its own, and the preset messages."""
        given = list(messages)
        first = given[:1] if given and _role(given[0]) in ("system", "developer") else []
        system = [{"role": "system", "content": self.system}] if self.system and not first else first
        told = [{"role": role, "content": content} for role, content in self.messages]
        return [*system, *told, *given[len(first) :]]


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def preset_of(manifest: Manifest, blobs: Path) -> Preset:
    """Read the small layers. Raises StoreError if one is missing or damaged."""

    def texts(kind: str) -> list[str]:
        return [_small(blobs, layer) for layer in manifest.only(kind)]

    found: dict[str, Any] = {}
    messages: list[tuple[str, str]] = []
    try:
        for text in texts("params"):
            found.update(json.loads(text))
        for text in texts("messages"):
            messages += [(str(row["role"]), str(row["content"])) for row in json.loads(text)]
    except StoreError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError):
        raise StoreError("the parameters or messages of the model are not JSON; pull it again") from None
    system, template = texts("system"), texts("template") or texts("prompt")
    return Preset(
        found, system[-1] if system else None, template[-1] if template else None, tuple(messages),
        tuple(texts("license")), tuple(_path(blobs, layer) for layer in manifest.only(ADAPTER)),
    )  # fmt: skip


def _path(blobs: Path, layer: Layer) -> Path:
    return Path(layer.path) if layer.path else blobs / blob_name(layer.digits)


def _small(blobs: Path, layer: Layer) -> str:
    path = _path(blobs, layer)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; pull the model again") from None
    if len(data) > LARGEST:
        raise StoreError(f"{path}: more than {LARGEST} bytes of {layer.kind}; pull the model again")
    return data.decode("utf-8", "replace")
