"""Files of prompts to files of answers, on one machine or a cluster: `python examples/ray_batch.py MODEL INPUT OUTPUT`.

INPUT is a JSONL or Parquet file, or a folder of them, with a column "prompt" (a text to go on with) or "messages" (a
conversation); OUTPUT a folder. A run that was killed goes on where it was when the same command is given again.

With RAY_ADDRESS (or inside a job of Ray) it runs on that cluster, whose machines must all reach the paths; otherwise on
the cores of this machine. Needs: pip install "llamacpu[ray]"
"""

import argparse
import sys

import ray

import llamacpu.ray


def main() -> None:
    """Read the command line and answer everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("input", nargs="+", help=".jsonl or .parquet files, or folders of them")
    parser.add_argument("output", help="a folder for the answers")
    parser.add_argument("--actors", type=int, default=1, help="engines, each with its own copy of the weights")
    parser.add_argument("--cores", type=int, default=1, help="of each engine")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer")
    parser.add_argument("--temperature", type=float, help="0 for the most likely tokens; as the model recommends")
    parser.add_argument("--rows-per-part", type=int, default=256, help="rows of a file of answers")
    given = parser.parse_args()
    ray.init(logging_level="warning")
    ray.data.DataContext.get_current().enable_progress_bars = False
    summary = llamacpu.ray.answer_files(
        given.model,
        given.input,
        given.output,
        actors=given.actors,
        num_cpus=given.cores,
        rows_per_part=given.rows_per_part,
        max_tokens=given.max_tokens,
        sampling={} if given.temperature is None else {"temperature": given.temperature},
        on_progress=lambda done, total: print(f"{done} of {total} parts", file=sys.stderr, flush=True),
    )
    print(f"{summary.rows} rows answered, {summary.errors} of them with errors; {summary.skipped} parts were there")


if __name__ == "__main__":
    main()
