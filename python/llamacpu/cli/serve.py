"""`llamacpu serve`: a server for OpenAI, Ollama and Anthropic clients."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import adapter_options, options
from llamacpu.cli.group import note_verbosity
from llamacpu.cli.terminal import write

if TYPE_CHECKING:
    from llamacpu.server.listening import Listener

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$", re.IGNORECASE)
_TIME = re.compile(r"^(-?\d+(?:\.\d+)?)\s*(ms|s|m|h|)$", re.IGNORECASE)


def _bytes(_context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = _SIZE.match(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r}; expected a size such as 8G or 500M", param=option)
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def _seconds(_context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = _TIME.match(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r}; expected a time such as 30s, 5m or -1 for no end", param=option)
    seconds = float(match[1]) * {"ms": 1e-3, "m": 60, "h": 3600}.get(match[2].lower(), 1)
    return None if seconds < 0 else seconds


def _aliases(_context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for given in value:
        alias, sign, name = given.partition("=")
        if not sign or not alias or not name:
            raise click.BadParameter(f"{given!r}; expected ALIAS=MODEL", param=option)
        found[alias] = name
    return found


@click.command("serve", short_help="Serve models to OpenAI and Ollama clients, with a page.")
@click.argument("models", nargs=-1, type=str, metavar="[MODEL]...", shell_complete=options.complete_files)
@click.option(
    "--ollama",
    is_flag=True,
    help="Listen where Ollama does (OLLAMA_HOST, or port 11434) and respect its other variables.",
)
@click.option("--host", default=None, help="Address to bind to. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port; 0 for any free one. [default: 8080]")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="LLAMACPU_API_KEY",
    help="Require this API key from clients; may be repeated, or set in LLAMACPU_API_KEY.",
)
@click.option("--without-key", is_flag=True, help="Allow an address that other machines can reach without an API key.")
@click.option(
    "--allowed-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web origin whose pages may call the server (CORS), such as https://example.com.",
)
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name by which clients reach the server, besides localhost and IP addresses.",
)
@click.option(
    "--store-changes",
    is_flag=True,
    help="Let clients pull, create, copy and delete models in llamacpu's own store, and use all that are in it.",
)
@click.option(
    "--alias", "aliases", multiple=True, metavar="ALIAS=MODEL", callback=_aliases, help="Another name for a model."
)
@click.option(
    "--parallel", type=click.IntRange(1, 256), help="Maximum number of requests processed in parallel. [default: 16]"
)
@click.option("--queue", type=click.IntRange(0, 100_000), help="Maximum number of queued requests. [default: 256]")
@click.option("--timeout", default="1h", show_default=True, callback=_seconds, help="Maximum time for a request.")
@click.option(
    "--memory-budget",
    "memory_budget",
    callback=_bytes,
    metavar="SIZE",
    help="Memory budget for all loaded models, such as 8G; unused models are unloaded to make room.",
)
@click.option(
    "--keep-alive",
    callback=_seconds,
    metavar="TIME",
    help="Unload a model after it has been unused for this long, such as 5m. [default: never]",
)
@click.option(
    "--grace",
    default="10s",
    show_default=True,
    callback=_seconds,
    metavar="TIME",
    help="Grace period for running requests after Ctrl-C or SIGTERM; a second signal ends them at once.",
)
@click.option(
    "--guard", metavar="FILE", help="Check messages and answers with this Llama Guard model before they are passed on."
)
@click.option(
    "--prefix-cache",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Persist the prefix cache in this folder across restarts.",
)
@click.option(
    "--prefix-cache-size",
    default="8G",
    show_default=True,
    callback=_bytes,
    metavar="SIZE",
    help="Maximum size of this folder; the least recently used entries are removed.",
)
@click.option(
    "--kv-memory",
    callback=_bytes,
    metavar="SIZE",
    help="Memory for the KV cache of each model. [default: half of the free memory]",
)
@adapter_options.adapters
@click.option(
    "--lora-init-without-apply",
    "without_applying",
    is_flag=True,
    help="Load the adapters with scale 0; requests enable them.",
)
@options.draft_model
@options.mmproj
@options.image_tokens
@options.image_crops
@click.option("--image-files", is_flag=True, help="Let clients name files of this machine as pictures.")
@click.option(
    "--image-addresses",
    is_flag=True,
    help="Let clients name addresses on the web as pictures, which the server fetches.",
)
@options.context
@options.kv_type
@options.threads
@options.priority
@options.duty
@click.option("--access-log", is_flag=True, help="Log every request to stderr, without its content.")
@options.as_json
@click.option(
    "-v",
    "--verbose",
    count=True,
    is_eager=True,
    callback=note_verbosity,
    help="Show the log on stderr; twice: the traceback of an error, too.",
)
def command(**given: Any) -> None:
    """Serve each MODEL (a name, a .gguf file or a folder of them) on this machine, until Ctrl-C or SIGTERM.

    Clients of the OpenAI API connect to the base URL http://127.0.0.1:8080/v1; a model's name is that of its file
    without the extension. Clients of Ollama, the Anthropic API and llama-server work as well. Browsers get a chat page.
    Without MODEL, the small demo model that comes with llamacpu is served. With --json, one line on stdout has the
    address, once the server is listening.
    """
    from llamacpu import server

    server.require()
    status = _serve(given)
    if status:
        raise click.exceptions.Exit(status)


def _serve(given: dict[str, Any]) -> int:
    from llamacpu import server
    from llamacpu.server.listening import Listener, bind, url_of
    from llamacpu.server.security import is_loopback

    defaults: dict[str, Any] = {"host": "127.0.0.1", "port": 8080, "parallel": 16, "queue": 256}
    if given["ollama"]:
        from llamacpu.server.ollama.environment import settings_of

        defaults |= settings_of(os.environ)
    given = given | {name: value for name, value in defaults.items() if given[name] in (None, ())}
    host, port = given["host"], given["port"]
    if not is_loopback(host) and not given["api_keys"] and not given["without_key"]:
        raise click.UsageError(
            f"--host is {host}, which other machines can reach, and no key is asked for; give --api-key, or "
            "--without-key if everybody may use it"
        )
    if len(given["models"]) > 1 and (given["lora"] or given["control_vectors"]):
        raise click.UsageError("--lora and --control-vector belong to one model; serve that one alone")
    if len(given["models"]) > 1 and given["mmproj"]:
        raise click.UsageError("--mmproj belongs to one model; serve that one alone, or put the file beside it")
    if len(given["models"]) > 1 and given["draft_model"] is not None:
        raise click.UsageError("--draft-model belongs to one model; serve that one alone")
    adapters = adapter_options.opened(given["lora"], given["control_vectors"])
    lora = [(path, 0.0 if given["without_applying"] else scale) for path, scale in adapters["lora"] or ()]
    _logging(given)
    hosts = (*given["hosts"], *(() if host in ("", "0.0.0.0", "::") else (host.lower(),)))
    with options.model_path(None) if not given["models"] else nullcontext(list(given["models"])) as models:
        application = server.app(
            models, aliases=given["aliases"], threads=given["threads"], memory_budget=given["memory_budget"],
            keep_alive=given["keep_alive"], api_keys=given["api_keys"], origins=given["origins"], hosts=hosts,
            parallel=given["parallel"], queue=given["queue"],
            timeout=1e9 if given["timeout"] is None else given["timeout"],
            grace_seconds=1e6 if given["grace"] is None else given["grace"],
            context=given["context"], kv_type=given["kv_type"], ollama=given["ollama"],
            guard=given["guard"], store_changes=given["store_changes"], kv_memory=given["kv_memory"],
            prefix_cache=given["prefix_cache"], prefix_cache_bytes=given["prefix_cache_size"],
            draft_model=given["draft_model"], mmproj=given["mmproj"], image_tokens=given["image_tokens"],
            image_crops=given["image_crops"], image_files=given["image_files"],
            image_addresses=given["image_addresses"],
            priority=given["priority"], duty=given["duty"],
            lora=lora, control_vectors=adapters["control_vectors"] or (),
        )  # fmt: skip
        with bind(host, port) as listening:
            listener = Listener(application)
            told = {"url": url_of(listening), "models": application.models.names, "api_key": bool(given["api_keys"])}
            _when_started(listener, lambda: _tell(told, given["as_json"]))
            try:
                listener.run([listening])
            except SystemExit:
                raise click.ClickException(application.models.failed or "the server could not start") from None
    return 130 if listener.signal == signal.SIGINT else 0


def _when_started(listener: Listener, tell: Any) -> None:
    startup = listener.startup

    async def started(sockets: Any = None) -> None:
        await startup(sockets)
        if listener.started:
            tell()

    listener.startup = started  # type: ignore[method-assign]


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        names = ", ".join(told["models"])
        write(f"Serving {names} at {told['url']} (OpenAI API at {told['url']}/v1). Ctrl-C ends.\n", sys.stderr)


def _logging(given: dict[str, Any]) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, wanted in (("llamacpu.server.access", given["access_log"]), ("llamacpu", given["verbose"])):
        if wanted:
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
