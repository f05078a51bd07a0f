"""`llamacpu doctor`: what llamacpu finds on this machine and what it chooses."""

from __future__ import annotations

import json
from typing import Any

import click

from llamacpu.cli import options
from llamacpu.cli.terminal import write
from llamacpu.families.memory import amount

_BUFFER_BYTES = 256 << 20


@click.command("doctor", short_help="Show what llamacpu finds and chooses on this machine.")
@click.option(
    "--no-bandwidth", is_flag=True, help="Do not measure memory bandwidth and matrix products (about a second)."
)
@options.threads
@options.as_json
def command(no_bandwidth: bool, threads: int | None, as_json: bool) -> None:
    """Show what llamacpu finds on this machine and what it chooses: processor, instruction sets, threads, memory.

    Memory bandwidth limits the speed of generation: every token reads all weights once. Peak matrix-multiplication
    throughput limits the speed of prompt processing: every token is multiplied by all weights.
    """
    from llamacpu.engine import machine

    facts = machine.describe()
    if threads is not None:
        facts |= {"threads": threads, "threads_reason": "as asked for by --threads"}
    facts["kernels"] = machine.kernels()
    facts["bandwidth_gigabytes_per_second"] = None
    facts["peak_gigaproducts_per_second"] = None
    if not no_bandwidth:
        # A small machine is measured with a smaller buffer, which must not push anything else out of memory.
        size = min(_BUFFER_BYTES, (facts["available_memory_bytes"] or 8 * _BUFFER_BYTES) // 8)
        facts["bandwidth_gigabytes_per_second"] = machine.memory_bandwidth(max(size, 1 << 20), threads)
        facts["peak_gigaproducts_per_second"] = machine.product_peak(threads)
    write(json.dumps(facts) + "\n" if as_json else _as_text(facts))


def _as_text(facts: dict[str, Any]) -> str:
    isa = facts["isa"] + (" (forced by LLAMACPU_ISA)" if facts["isa_forced_by"] else "")
    rows = [
        ("processor", f"{facts['processor']} ({facts['architecture']}, {facts['logical_processors']} logical)"),
        ("instruction sets", ", ".join(facts["instruction_sets"])),
        ("chosen", isa),
        ("features", _features(facts)),
        ("threads", f"{facts['threads']} ({facts['threads_reason']})"),
        ("memory", _memory(facts)),
    ]
    bandwidth = facts["bandwidth_gigabytes_per_second"]
    if bandwidth is not None:
        rows.append(("bandwidth", f"{bandwidth:.1f} GB/s: at most {bandwidth:.0f} tokens/s with 1 GB of weights"))
    peak = facts["peak_gigaproducts_per_second"]
    if peak is not None:
        rows.append(("products", f"{peak:.0f} GMAC/s: at most {peak:.0f} prompt tokens/s with 1 billion weights"))
    rows += [
        ("system", facts["system"]),
        ("versions", f"llamacpu {facts['llamacpu']}, Python {facts['python']}, NumPy {facts['numpy']}"),
    ]
    text = "".join(f"{name:<18}{value}\n" for name, value in rows)
    return text + "\nkernels\n" + "".join(f"  {name:<8}{kernel}\n" for name, kernel in facts["kernels"].items())


def _features(facts: dict[str, Any]) -> str:
    """The features that the chosen instruction set uses, and those that the processor has but the set does not use."""
    chosen, found = facts["isa_features"], facts["processor_features"]
    unused = [name for name in found if name not in chosen]
    text = ", ".join(chosen) or "none beyond the baseline of this architecture"
    return text + (f"; not used: {', '.join(unused)}" if unused else "")


def _memory(facts: dict[str, Any]) -> str:
    total, available = facts["memory_bytes"], facts["available_memory_bytes"]
    if total is None:
        return "unknown"
    return amount(total) + ("" if available is None else f", {amount(available)} available")
