"""Test processes that share a run leave no file out and run none twice, and no failure is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

FILES = {
    "test_first.py": "import pytest\n@pytest.mark.parametrize('n', range(3))\ndef test(n, note): note(n)",
    "test_second.py": "def test_well(note): note(3)\ndef test_not(note): note(4); assert False",
    "test_third.py": "raise ValueError('this file cannot be read')",
    "test_fourth.py": "import pytest\npytest.skip('nothing here', allow_module_level=True)",
    "below/test_fifth.py": "def test_a(note): note(5)\ndef test_b(note): note(6)",
}
CONFTEST = """
import pathlib, pytest
from shared_files import pytest_configure
@pytest.fixture(scope="session")
def note():
    yield lambda n: pathlib.Path(__file__).with_name(f"ran{n}").open("x").close()
    pathlib.Path(__file__).with_name("ended").open("a").write("once ")
"""


def test_every_file_runs_once_and_failures_are_seen(tmp_path: Path) -> None:
    tests, queue = tmp_path / "tests", tmp_path / "queue"
    (tests / "below").mkdir(parents=True)
    queue.mkdir()
    (tests / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    for name, code in FILES.items():
        (tests / name).write_text(code, encoding="utf-8")
    (tests / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {**os.environ, "LLAMACPU_TEST_QUEUE": str(queue), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests)],
            env=environment, cwd=tests, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]
    # 0 or 5: the other process took everything in which something fails, or everything.
    assert 1 in {process.returncode for process in processes} <= {0, 1, 5}, outputs
    counts = [json.loads(path.read_text(encoding="utf-8")) for path in queue.glob("*.json")]
    assert len(counts) == 2
    total = {outcome: sum(count.get(outcome, 0) for count in counts) for outcome in set().union(*counts)}
    assert total == {"passed": 6, "failed": 1, "error": 1, "skipped": 1}, outputs
    assert sorted(path.name for path in tests.glob("ran*")) == [f"ran{n}" for n in range(7)]
    assert "this file cannot be read" in "".join(outputs)
    # What belongs to a process is given up once, at its end.
    assert 1 <= (tests / "ended").read_text(encoding="utf-8").count("once") <= 2
