"""Several test processes share one run: each takes the next file that no other has taken, and reads only that one.

The variable LLAMACPU_TEST_QUEUE names a folder that they share. Whoever creates the file N in it runs the N-th test
file; at its end, a process leaves the number of each outcome there. Processes that all collect everything first, as
those of pytest-xdist do, each spend on reading files what many tests cost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from selection import in_order


def pytest_configure(config: pytest.Config) -> None:
    """Share the files with other processes if the variable says so."""
    # A pytest that a test starts shares nothing.
    folder = os.environ.pop("LLAMACPU_TEST_QUEUE", None)
    if folder is not None and not config.option.collectonly:
        # Registered, since pytest asks the hooks of a conftest.py about what is below its folder only.
        config.pluginmanager.register(SharedRun(config, Path(folder)))


class SharedRun:
    """The part of a run that this process takes."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self.folder = folder
        self.files = _taken(list(config.args), config.getini("python_files"), folder)
        # Folder -> its node, to which the fixtures of its conftest.py belong, and node -> what is in the folder.
        self.directories: dict[Path, pytest.Collector] = {}
        self.lists: dict[pytest.Collector, pytest.CollectReport | None] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Let pytest collect the first file only."""
        session.config.args[:] = next(self.files, [])

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_directory(self, path: Path) -> Generator[None, pytest.Collector | None, pytest.Collector | None]:
        """A folder is one node, however often it is looked into for a file."""
        node = yield
        return node if node is None else self.directories.setdefault(path, node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> pytest.CollectReport | None:
        """A folder is read once: for each file anew, that would take as long as reading the files."""
        if not isinstance(collector, pytest.Directory):
            return None
        if collector not in self.lists:
            # Nothing yet, and the others are asked.
            self.lists[collector] = None
            self.lists[collector] = collector.ihook.pytest_make_collect_report(collector=collector)
        return self.lists[collector]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what has been collected, then collect and run one file after the other until all have been taken."""
        items, collected = list(session.items), 0
        while True:
            # Without any, pytest would report that it ran no test.
            session.testscollected = collected = collected + len(items)
            for index, item in enumerate(items, 1):
                # After the last test of a file, what belongs to the session is kept for the next one.
                following = items[index] if index < len(items) else session
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
            arguments = next(self.files, None)
            if arguments is None:
                return True
            items = list(session.perform_collect(arguments))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Leave the number of each outcome in the folder."""
        counts = {outcome: len(reports) for outcome, reports in terminalreporter.stats.items() if outcome}
        (self.folder / f"{os.getpid()}.json").write_text(json.dumps(counts), encoding="utf-8")


def _taken(wanted: list[str], patterns: list[str], folder: Path) -> Iterator[list[str]]:
    """For each file that this process takes, what of it is to be collected."""
    files: dict[Path, list[str]] = {}
    for argument in wanted:
        path = Path(argument.partition("::")[0])
        if path.is_dir():
            for file in (file for pattern in patterns for file in path.rglob(pattern)):
                files.setdefault(file, []).append(str(file))
        else:
            files.setdefault(path, []).append(argument)
    for number, file in enumerate(in_order(files)):
        try:
            (folder / str(number)).open("x").close()
        except FileExistsError:
            continue
        yield files[file]
