"""A server in the shapes of the APIs of OpenAI, Anthropic, Ollama and llama-server: an ASGI application, and `serve`.

application      the ASGI application
listening        sockets, signals, the server in a thread
endpoints        what an endpoint is; one folder an API: openai, responses, anthropic, ollama, llama_server
openapi          the document that is made of the same table
bodies, errors   JSON -> typed models; exceptions -> error objects
security, access who may ask; the log and the metrics of requests
pool, served     models by name, each with its engine
prompts          requests -> questions
running, streams answers of engines -> the event loop -> responses that end when their client is gone

It needs the extra `llamacpu[server]`.
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
    """A server as an ASGI application, to run with any ASGI server or to mount in an application of one's own.

    models         an open `Model`, the path of a .gguf file or of a folder of them, a list of these, or a mapping of
                   names to these; the first is used where a request names none
    aliases        other names: alias -> name
    threads        of each model
    memory_budget  bytes that all models in memory may take together; one that is not used makes room for another
    keep_alive     seconds that an unused model stays in memory; None until it has to make room
    guard          a Llama Guard model, as file or open: it judges what users say and what is answered before it passes
    settings       the fields of `llamacpu.server.settings.Settings`: api_keys, origins, hosts, parallel, timeout ...

    A mounted application gets no lifespan of its own: use its `lifespan` in that of the outer one, so that answers are
    ended at the shutdown. Raises ValueError and FileNotFoundError for models that there are not, ImportError without
    the extra.
    """
    require()
    from llamacpu.server.application import Application
    from llamacpu.server.settings import Settings

    pool = {"aliases": aliases, "threads": threads, "budget": memory_budget, "keep_alive": keep_alive}
    return Application(models, Settings(**settings), {"models": pool, "guard": guard})


def serve(models: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Serving:
    """A server that runs in a thread while a `with` block does: its address is what the block is given.

        with llamacpu.serve("model.gguf") as url:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

    port     0 for any that is free
    options  those of `llamacpu.server.app`
    """
    require()
    from llamacpu.server.listening import Serving

    return Serving(app(models, **options), host, port)


def require() -> None:
    """Raises ImportError, which says what to install, without the extra."""
    try:
        import prometheus_client  # noqa: F401
        import pydantic  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the server needs {error.name}; install it with: pip install llamacpu[server]", name=error.name
        ) from None
