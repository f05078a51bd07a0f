"""The protocol of Ollama's registry: a manifest lists blobs, each named by the sha256 of its bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from llamacpu.errors import StoreError
from llamacpu.store.known import did_you_mean
from llamacpu.store.manifests import LARGEST, MODEL, Layer, Manifest, read_manifest
from llamacpu.store.names import REGISTRY, RegistryName
from llamacpu.store.transfer import HttpError, get, parsed

__all__ = ["RemoteModel", "look_up"]

_ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class RemoteModel:
    """A model in a registry: its manifest, and where its blobs are."""

    name: RegistryName
    manifest: Manifest
    data: bytes
    base: str
    headers: Mapping[str, str]

    @property
    def model(self) -> Layer:
        """The weights."""
        return self.manifest.only(MODEL)[0]

    def blob(self, layer: Layer) -> str:
        """Return the URL of a blob."""
        return f"{self.base}/blobs/sha256:{layer.digits}"


def look_up(name: RegistryName) -> RemoteModel:
    """Fetch the manifest of a name. Raises StoreError, suggesting what may have been meant, if there is none."""
    base = f"{_origin(name.host)}/v2/{name.namespace}/{name.model}"
    url = f"{base}/manifests/{name.tag}"
    headers = {"Accept": _ACCEPT}
    try:
        try:
            data, _ = get(url, headers, LARGEST)
        except HttpError as error:
            if error.status != 401:
                raise
            headers |= _token(error, base)
            data, _ = get(url, headers, LARGEST)
    except HttpError as error:
        if error.status == 404:
            hint = did_you_mean(str(name).removesuffix(":latest"))
            if name.namespace != "library":
                hint = f"; for a repository of the hub write hf:{name.namespace}/{name.model}"
            raise StoreError(
                f"{name} is neither on this machine nor in the registry {name.host}{hint}", missing=True
            ) from None
        raise
    manifest = read_manifest(data, f"the registry's manifest of {name}")
    models = manifest.only(MODEL)
    if len(models) != 1:
        kinds = ", ".join(sorted({layer.kind for layer in manifest.layers})) or "nothing"
        raise StoreError(f"{name} is no model in one GGUF file (it has {kinds}); llamacpu cannot run it")
    return RemoteModel(name, manifest, data, base, headers)


def _origin(host: str) -> str:
    given = os.environ.get("LLAMACPU_REGISTRY", "").rstrip("/")
    if host == REGISTRY and given:
        if urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).hostname:
            raise StoreError(
                f"LLAMACPU_REGISTRY is {given!r}; expected an address such as https://registry.example.com"
            )
        return given
    # Only a registry on this machine is contacted without encryption.
    return f"http://{host}" if urlsplit(f"//{host}").hostname in _LOCAL else f"https://{host}"


def _token(error: HttpError, base: str) -> dict[str, str]:
    """Get an anonymous token from where the registry says it can be obtained."""
    fields = {key.lower(): value for key, value in error.headers.items()}
    kind, _, rest = fields.get("www-authenticate", "").partition(" ")
    told = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = urlsplit(told.get("realm", ""))
    if kind.lower() != "bearer" or (realm.scheme != "https" and realm.netloc != urlsplit(base).netloc):
        raise error
    query = urlencode({key: told[key] for key in ("service", "scope") if key in told})
    data, _ = get(f"{told['realm']}?{query}", most=1 << 20)
    answer = parsed(data, told["realm"])
    key = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(key, str) or not key.isascii() or not key.isprintable():
        raise error
    return {"Authorization": f"Bearer {key}"}
