#!/usr/bin/env python3
"""The developer commands of this project: `python3 dev.py COMMAND`.

Needs Python 3.10 or newer and a Rust toolchain, nothing else.

Everything is installed into .venv beside this file; continuous integration runs the same commands.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "llamacpu-extras"
RUST_TESTED = ["-p", "llamacpu-kernels", "-p", "llamacpu-model", "-p", "llamacpu-text"]


def run(*command: str | Path, **environment: str) -> None:
    """Run one command in the project's root, show it, and stop at the first failure with its status."""
    words = [str(word) for word in command]
    print("$", *(f"{key}={value}" for key, value in environment.items()), *words, flush=True)
    status = subprocess.run(words, cwd=ROOT, env=os.environ | environment).returncode
    if status:
        sys.exit(status)


def setup(extras: str = "dev") -> None:
    """Create .venv and install the tools and the dependencies of the package, but not the package."""
    if shutil.which("cargo") is None:
        sys.exit(
            "Error: no cargo on the path; a Rust toolchain (1.89 or newer) is needed: install one, then run this again"
        )
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", VENV)
    wanted = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != extras + wanted:
        requirements = _requirements(extras)
        run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
        STAMP.write_text(extras + wanted, encoding="utf-8")


def _requirements(extra: str) -> list[str]:
    """The run-time dependencies and those of one extra, read from pyproject.toml by pip's own parser of TOML."""
    code = (
        "import json, sys\n"
        "try: import tomllib\n"
        "except ImportError: from pip._vendor import tomli as tomllib\n"
        "p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']\n"
        "def flat(n): return [r for q in e[n] for r in (flat(q[9:-1]) if q.startswith('llamacpu[') else [q])]\n"
        "print(json.dumps(p['dependencies'] + flat(sys.argv[1])))"
    )
    import json

    answer = subprocess.run([str(PYTHON), "-c", code, extra], cwd=ROOT, check=True, capture_output=True, text=True)
    return list(json.loads(answer.stdout))


def build() -> None:
    """Build the extension with full optimization and install the package into .venv, editable."""
    setup()
    run(PYTHON, "-m", "maturin", "develop", "--release", "--quiet", VIRTUAL_ENV=str(VENV))


def test(arguments: list[str]) -> None:
    """Run the Rust tests, then the Python tests once per instruction set of this processor."""
    build()
    run("cargo", "test", "--quiet", *RUST_TESTED)
    names = subprocess.run(
        [str(PYTHON), "-c", "from llamacpu import _native; print(*_native.cpu_facts()['available'])"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        run(PYTHON, "-m", "pytest", *arguments, LLAMACPU_ISA=name)


def lint() -> None:
    """Check formatting, lints, types and stubs; warnings are errors."""
    setup()
    run("cargo", "fmt", "--all", "--check")
    run("cargo", "clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings")
    run(PYTHON, "-m", "ruff", "check", ".")
    run(PYTHON, "-m", "ruff", "format", "--check", ".")
    build()
    run(PYTHON, "-m", "mypy")
    run(PYTHON, "-m", "mypy.stubtest", "llamacpu._native", "--allowlist", "stubtest-allowlist.txt")
    if shutil.which("cargo-deny"):
        run("cargo", "deny", "check")


def fix() -> None:
    """Format everything and apply the safe fixes of the linters."""
    setup()
    run("cargo", "fmt", "--all")
    run(PYTHON, "-m", "ruff", "check", "--fix", ".")
    run(PYTHON, "-m", "ruff", "format", ".")


def neighbours(arguments: list[str]) -> None:
    """Run the tests with the real LangChain, LlamaIndex, llm and PyInstaller, in a .venv-neighbours of their own."""
    build()
    venv = ROOT / ".venv-neighbours"
    python = venv / PYTHON.relative_to(VENV)
    if not python.exists():
        run(sys.executable, "-m", "venv", venv)
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, *_requirements("conformance"), "hypothesis", "pytest", "pytest-benchmark", "pytest-timeout")
    # Its own dependency on llama-cpp-python would be compiled, for which compat.install() stands in.
    run(*install, "--no-deps", "llama-index-llms-llama-cpp")
    source = str(ROOT / "python")
    for name in ("langchain_community", "llama_index.llms.llama_cpp", "llm", "PyInstaller"):
        run(python, "-c", f"import llamacpu.compat; llamacpu.compat.install(); import {name}", PYTHONPATH=source)
    run(python, "-m", "pytest", "-rs", "tests/test_compat.py", "tests/test_frozen.py", *arguments, PYTHONPATH=source)


def stress() -> None:
    """Run the stress test for a minute on each of two models."""
    build()
    names = "demo or another_format"
    run(PYTHON, "-m", "pytest", "-rs", "tests/test_stress.py", "-k", names, LLAMACPU_STRESS_SECONDS="60")


def bench(arguments: list[str]) -> None:
    """Run the benchmarks of benches/ (pytest-benchmark); they print, they never assert a time."""
    build()
    run(PYTHON, "-m", "pytest", "benches", "--benchmark-enable", "--benchmark-only", "-s", *arguments)


def arm(*command: str, cpu: str = "max", **variables: str) -> None:
    """Run a cargo command for 64-bit Arm with Debian's compiler and cross linker; what it builds runs under qemu."""
    rustc, linker = Path("/usr/bin/rustc"), shutil.which("aarch64-linux-gnu-gcc")
    if not rustc.exists() or linker is None:
        sys.exit(
            "Error: the Arm cross compiler is missing; on Debian: dpkg --add-architecture arm64 && apt-get update && "
            "apt-get install rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        )
    target = "aarch64-unknown-linux-gnu"
    # The libraries come with the target's standard library; those of the cross compiler may be of another version.
    libraries = "" if Path("/lib/ld-linux-aarch64.so.1").exists() else " -L /usr/aarch64-linux-gnu"
    environment = {
        "RUSTC": str(rustc),
        "RUSTFLAGS": "-D warnings",
        "PYO3_BUILD_EXTENSION_MODULE": "1",
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": linker,
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER": f"qemu-aarch64 -cpu {cpu}{libraries}",
        **variables,
    }
    options = ["--quiet", "--profile", "fast", "--target", target, "--target-dir", "target/arm"]
    run("cargo", command[0], *options, *command[1:], **environment)


def cross() -> None:
    """Compile the workspace for 64-bit Arm, on a Debian machine with the cross compiler."""
    arm("build", "--workspace")


def emulate() -> None:
    """Run the Rust tests of the kernels and the model for 64-bit Arm under qemu."""
    tests = ("test", "-p", "llamacpu-kernels", "-p", "llamacpu-model", "--lib", "--tests")
    # qemu cannot emulate a process with threads that forks.
    arm(*tests, "--", "--skip", "a_forked_child", LLAMACPU_EXPECTED_ISAS="scalar, neon, i8mm")
    # Processors with less: the right sets are found, and no instruction of another one is executed.
    for cpu, sets in (("cortex-a76", "scalar, neon"), ("cortex-a72", "scalar")):
        names = ("every_instruction_set_computes", "every_instruction_set_is_found")
        arm(*tests, "--", *names, cpu=cpu, LLAMACPU_EXPECTED_ISAS=sets)


def check() -> None:
    """Everything that continuous integration runs: lints, then tests."""
    lint()
    test([])


COMMANDS = {f.__name__: f for f in (setup, build, test, neighbours, stress, lint, fix, bench, cross, emulate, check)}


def main() -> None:
    """Read the command line and run one command; what follows `test`, `neighbours` and `bench` goes to pytest."""
    described = "\n".join(
        f"  {name:11s}{(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="commands:\n" + described, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    chosen, rest = parser.parse_known_args()
    if chosen.command in ("test", "neighbours", "bench"):
        COMMANDS[chosen.command](rest)
    elif rest:
        parser.error(f"{chosen.command} takes no arguments, got {' '.join(rest)}")
    else:
        COMMANDS[chosen.command]()


if __name__ == "__main__":
    main()
