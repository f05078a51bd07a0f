"""Custom models: a Modelfile applied to an existing model, whose weights stay where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamacpu.errors import GGUFError, StoreError
from llamacpu.gguf.file import GGUFFile
from llamacpu.store.entries import Entry
from llamacpu.store.local import find
from llamacpu.store.manifests import ADAPTER, Layer, Manifest, Preset
from llamacpu.store.modelfile import Modelfile, written
from llamacpu.store.names import RegistryName
from llamacpu.store.own import manifest_of, own_name, write_blob, write_manifest
from llamacpu.store.places import Places, places
from llamacpu.store.resolve import resolve

__all__ = ["create", "create_over", "modelfile_of", "text_of"]


def create(
    name: str,
    modelfile: Modelfile,
    folder: Path,
    where: Places | None = None,
    *,
    get: Callable[[str], Entry] = resolve,
    check_template: Callable[[str], None] = lambda _source: None,
) -> Entry:
    """Store a model under a name: another model's file, with the settings of a Modelfile overriding that model's.

    folder          the folder to which paths in the Modelfile are relative
    get             finds the model that FROM names, downloading it if necessary
    check_template  raises TemplateError for a template that cannot be used

    Raises StoreError, in which case nothing has changed.
    """
    where = where or places()
    wanted = own_name(name)
    _check(modelfile, check_template)
    adapters = tuple(os.fspath(_adapter(given, folder)) for given in modelfile.adapters)
    return create_over(_base(modelfile.source, folder, get), wanted, replace(modelfile, adapters=adapters), where)


def _check(modelfile: Modelfile, check_template: Callable[[str], None]) -> None:
    if modelfile.template:
        check_template(modelfile.template)


def create_over(base: Entry, wanted: RegistryName, modelfile: Modelfile, where: Places | None = None) -> Entry:
    """Create a model as `create` does, from a base model that was already found, regardless of FROM."""
    where = where or places()
    _check(modelfile, lambda _source: None)
    if not base.path.is_file():
        raise StoreError(f"FROM {modelfile.source}: there is no file {base.path}; check the path")
    GGUFFile(base.path).close()
    manifest = manifest_of(base, where)
    preset = base.preset
    layers = [layer for layer in manifest.layers if layer.kind not in _replaced(modelfile)]
    parameters = {**preset.parameters, **modelfile.parameters}
    for kind, value in (
        ("template", modelfile.template),
        ("system", modelfile.system),
        ("params", json.dumps(parameters, ensure_ascii=False) if modelfile.parameters else None),
        ("messages", _messages(modelfile) if modelfile.messages else None),
        *(("license", text) for text in modelfile.licenses),
    ):
        if value is not None:
            layers.append(write_blob(where.own, kind, value.encode("utf-8", "replace")))
    for path in map(Path, modelfile.adapters):
        layers.append(Layer(ADAPTER, "", path.stat().st_size, os.path.abspath(path)))  # noqa: PTH100 (keeps links)
    write_manifest(where.own, wanted, Manifest(tuple(layers)).as_bytes())
    found = find(wanted, where, own=True)
    assert found is not None
    return found


def _adapter(given: str, folder: Path) -> Path:
    """Return the path of an adapter. Raises StoreError if it is no LoRA adapter in GGUF."""
    path = folder / Path(given).expanduser()
    if not path.is_file():
        raise StoreError(f"ADAPTER {given}: there is no such file; expected a LoRA adapter in a .gguf file")
    try:
        with GGUFFile(path) as file:
            kind = file.metadata.get("general.type"), file.metadata.get("adapter.type")
    except GGUFError as error:
        raise StoreError(f"ADAPTER {given}: {error}; expected a LoRA adapter in a .gguf file") from None
    if kind != ("adapter", "lora"):
        raise StoreError(f"ADAPTER {given}: this is no LoRA adapter: general.type and adapter.type are {kind!r:.80}")
    return path


def _base(source: str, folder: Path, get: Callable[[str], Entry]) -> Entry:
    path = Path(source).expanduser()
    beside = path if path.is_absolute() else folder / path
    if beside.is_dir() and (path.is_absolute() or os.sep in source or source in (".", "..")):
        files = sorted(one for one in beside.iterdir() if one.suffix.lower() == ".gguf")
        if len(files) != 1:
            raise StoreError(
                f"FROM {source}: the folder has {len(files)} .gguf files; expected the path of one. Weights in "
                "safetensors have to be converted to GGUF first: llamacpu convert"
            )
        beside = files[0]
    return get(os.fspath(beside) if beside.is_file() else source)


def _replaced(modelfile: Modelfile) -> set[str]:
    """Return the kinds of layers that a Modelfile replaces."""
    return {
        kind
        for kinds, given in (
            (("template", "prompt"), modelfile.template is not None),
            (("system",), modelfile.system is not None),
            (("params",), bool(modelfile.parameters)),
            (("messages",), bool(modelfile.messages)),
            ((ADAPTER,), bool(modelfile.adapters)),
        )
        if given
        for kind in kinds
    }


def _messages(modelfile: Modelfile) -> str:
    return json.dumps([{"role": role, "content": text} for role, text in modelfile.messages], ensure_ascii=False)


def modelfile_of(entry: Entry) -> Modelfile:
    """Return the Modelfile that recreates this model from its file."""
    preset: Preset = entry.preset
    known: dict[str, Any] = {
        "parameters": preset.parameters, "system": preset.system, "template": preset.template,
        "messages": preset.messages, "licenses": preset.licenses, "adapters": tuple(map(str, preset.adapters)),
    }  # fmt: skip
    return replace(Modelfile(str(entry.path)), **known)


def text_of(entry: Entry) -> str:
    """Return the Modelfile of `modelfile_of` as text."""
    again = f"To build on this model, write: FROM {entry.name}" if entry.manifest is not None else ""
    return written(modelfile_of(entry), again)
