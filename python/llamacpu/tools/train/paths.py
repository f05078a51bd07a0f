"""The files that a training writes, and the refusal to lose others."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llamacpu.arguments import path as check_path
from llamacpu.errors import GGUFError, TrainingError
from llamacpu.gguf.file import GGUFFile
from llamacpu.store.file_lock import file_lock

__all__ = ["Paths"]


@dataclass
class Paths:
    """Where a training writes its results; `peft` is None for no folder."""

    output: Path
    checkpoint: Path
    log: Path
    peft: Path | None
    peft_if_possible: bool
    """whether the folder was not asked for by name, and is left out if it cannot be written"""

    @classmethod
    def of(
        cls,
        output: str | os.PathLike[str],
        peft: str | os.PathLike[str] | bool | None,
        log: str | os.PathLike[str] | None,
    ) -> Paths:
        """The paths for an output."""
        check_path("output", output)
        path = Path(output)
        if path.suffix.lower() != ".gguf":
            raise TrainingError(f"the output is {path.name!r}; expected the name of a .gguf file for the adapter")
        folder = path.with_name(f"{path.stem}-peft")
        if peft is not None and not isinstance(peft, bool):
            check_path("peft", peft)
            folder = Path(peft)
        return cls(
            path,
            path.with_name(f"{path.name}.checkpoint"),
            path.with_name(f"{path.stem}-loss.csv") if log is None else Path(log),
            None if peft is False else folder,
            peft is None,
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the output for this run alone.

        Raises TrainingError if another run is at work on it, FileNotFoundError if there is no such folder.
        """
        if not self.output.parent.is_dir():
            raise FileNotFoundError(
                errno.ENOENT, "there is no such folder; make it, or give another name", str(self.output.parent)
            )
        with file_lock(self.output.with_name(f".{self.output.name}.lock"), self._refuse):
            yield

    def _refuse(self) -> None:
        raise TrainingError(
            f"another training is at work on {self.output}: wait until it has ended, or give another name"
        )

    def check(self, inputs: Iterable[Path]) -> None:
        """Raise an OSError if the output would replace an input, or a GGUF file that is no adapter."""
        if not self.output.exists():
            return
        for other in inputs:
            if self.output.samefile(other):
                raise FileExistsError(errno.EEXIST, "this is the model; give another name", str(self.output))
        if self.output.is_file() and not self.output.stat().st_size:
            return
        try:
            with GGUFFile(self.output) as file:
                is_adapter = file.metadata.get("general.type") == "adapter"
        except GGUFError:
            is_adapter = False
        if not is_adapter:
            raise FileExistsError(
                errno.EEXIST, "this is something other than an adapter; give another name", str(self.output)
            )

    def settle_peft(self, check: Callable[[Path], None]) -> str | None:
        """Check the folder; one that was not asked for by name is given up, and the reason is returned."""
        if self.peft is None:
            return None
        try:
            check(self.peft)
        except TrainingError as error:
            if not self.peft_if_possible:
                raise
            self.peft = None
            return str(error)
        return None
