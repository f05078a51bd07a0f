#!/usr/bin/env python3
"""A FastAPI application with a model of its own: `python examples/fastapi_mount.py [MODEL]`.

Under /llm are the APIs of OpenAI, Ollama and Anthropic, with the chat page; /summary is an endpoint of this program,
answered by the same model in this process. Needs: pip install "llamacpu[server]" fastapi
"""

from __future__ import annotations

import argparse
import asyncio
from importlib import resources

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

import llamacpu
from llamacpu import server

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")


class Text(BaseModel):
    """What is to be summarized."""

    text: str
    max_tokens: int = 60


def application(model: llamacpu.Model) -> FastAPI:
    """Return the application; the server under /llm starts and stops with it."""
    llm = server.app(model)
    api = FastAPI(title="Summaries", lifespan=llm.lifespan)

    @api.post("/summary")
    async def summary(given: Text) -> dict[str, str]:
        """A sentence about a text."""
        answer = await asyncio.to_thread(
            model.chat,
            [{"role": "user", "content": f"Summarize in one sentence: {given.text}"}],
            max_tokens=given.max_tokens,
        )
        return {"summary": answer.content}

    api.mount("/llm", llm)
    return api


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEMO, help="file or name (the demo model)")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    with llamacpu.Model(given.model) as model:
        uvicorn.run(application(model), host="127.0.0.1", port=given.port)


if __name__ == "__main__":
    main()
