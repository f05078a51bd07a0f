"""The server in replicas, on one machine or a cluster: `python examples/ray_serve.py MODEL --replicas 1 4 --cores 8`.

It speaks the APIs of OpenAI, Anthropic, Ollama and llama-server at http://127.0.0.1:8000, as `llamacpu serve` does. All
turns of a conversation go to one replica, which has computed the earlier ones; the number of replicas follows the
requests between the least and the most. Ctrl-C ends it.

With RAY_ADDRESS (or inside a job of Ray) it runs on that cluster, whose machines must all reach the file; otherwise on
the cores of this machine. Needs: pip install "llamacpu[ray]"
"""

import argparse
import signal
import threading

import ray
from ray import serve

import llamacpu.ray


def main() -> None:
    """Read the command line, start the replicas, and wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help=".gguf files, or a folder of them")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1], help="a number, or the least and the most")
    parser.add_argument("--cores", type=int, default=1, help="of each replica")
    parser.add_argument("--port", type=int, default=8000, help="on loopback")
    parser.add_argument("--api-key", action="append", default=[], help="a key that requests must have; may be repeated")
    given = parser.parse_args()
    if len(given.replicas) > 2:
        parser.error("--replicas takes a number, or the least and the most")
    ray.init(logging_level="warning")
    ended = threading.Event()
    # After `ray.init`, which installs its own handlers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    serve.start(http_options={"host": "127.0.0.1", "port": given.port})
    application = llamacpu.ray.application(
        given.model,
        replicas=(given.replicas[0], given.replicas[-1]),
        num_cpus=given.cores,
        api_keys=tuple(given.api_key),
    )
    try:
        serve.run(application, name="llamacpu")
        print(f"http://127.0.0.1:{given.port}", flush=True)
        ended.wait()
    finally:
        serve.delete("llamacpu")


if __name__ == "__main__":
    main()
