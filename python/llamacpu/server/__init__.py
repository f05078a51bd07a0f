"""A server with the APIs of OpenAI, Anthropic, Ollama and llama-server: an ASGI application, and `serve`.

application      the ASGI application
listening        sockets, signals, running the server in a thread
endpoints        what an endpoint is; one folder per API: openai, responses, anthropic, ollama, llama_server
openapi          the OpenAPI document, generated from the same table of endpoints
bodies, errors   JSON -> typed models; exceptions -> error objects
security, access who may send requests; the access log and the request metrics
pool, served     models by name, each with its own engine
prompts          requests -> questions
running, streams answers of engines -> the event loop -> responses that end when their client disconnects

Requires the extra `llamacpu[server]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llamacpu.server.application import Application
    from llamacpu.server.listening import Serving

__all__ = ["app", "serve"]


def app(
    models: Any,
    *,
    aliases: Mapping[str, str] | None = None,
    threads: int | None = None,
    memory_budget: int | None = None,
    keep_alive: float | None = None,
    guard: Any = None,
    **settings: Any,
) -> Application:
    """Return a server as an ASGI application, to run under any ASGI server or to mount in your own application.

    models         an open `Model`, the path of a .gguf file or of a folder of them, a list of these, or a mapping from
                   names to these; requests that name no model use the first
    aliases        other names: alias -> name
    threads        number of threads for each model
    memory_budget  total bytes that the models in memory may take; unused models are unloaded to make room
    keep_alive     seconds that an unused model stays in memory; None: until it has to make room
    guard          a Llama Guard model, open or as a file: it checks messages and answers before they are passed on
    settings       the fields of `llamacpu.server.settings.Settings`: api_keys, origins, hosts, parallel, timeout ...

    A mounted application receives no lifespan events: enter its `lifespan` from that of the outer application, so that
    answers are ended at shutdown. Raises ValueError and FileNotFoundError for models that do not exist, ImportError
    without the extra.
    """
    require()
    from llamacpu.server.application import Application
    from llamacpu.server.settings import Settings

    pool = {"aliases": aliases, "threads": threads, "budget": memory_budget, "keep_alive": keep_alive}
    return Application(models, Settings(**settings), {"models": pool, "guard": guard})


def serve(models: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Serving:
    """Return a context manager that runs a server in a thread for the duration of a `with` block and yields its URL.

        with llamacpu.serve("model.gguf") as url:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

    port     0 for any free port
    options  the keyword arguments of `llamacpu.server.app`
    """
    require()
    from llamacpu.server.listening import Serving

    return Serving(app(models, **options), host, port)


def require() -> None:
    """Raise ImportError, which says what to install, if the extra is missing."""
    try:
        import prometheus_client  # noqa: F401
        import pydantic  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the server needs {error.name}; install it with: pip install llamacpu[server]", name=error.name
        ) from None
