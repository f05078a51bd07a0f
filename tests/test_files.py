"""Files that take the place of older ones: of their own kind only, through links, at once or not at all."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from llamacpu.files import replacing

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and permissions of POSIX systems")


def is_note(file: BinaryIO) -> bool:
    return file.read(4) == b"note"


def write(path: Path, data: bytes = b"note 2", **options: bool) -> None:
    with replacing(path, "a note", is_note, **options) as file:
        file.write(data)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("older", [None, b"", b"note 1"])
def test_a_new_file_and_one_of_the_same_kind(tmp_path: Path, older: bytes | None) -> None:
    path = tmp_path / "a"
    if older is not None:
        path.write_bytes(older)
    write(path)
    assert path.read_bytes() == b"note 2"
    assert names(tmp_path) == ["a"]


def test_another_kind_of_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match=r"something other than a note.*thesis\.txt"):
        write(path)
    assert path.read_bytes() == b"years of work"
    assert names(tmp_path) == ["thesis.txt"]


def test_an_error_in_the_middle_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"note 1")
    with pytest.raises(RuntimeError, match="stop"), replacing(path, "a note", is_note) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"note 1"
    assert names(tmp_path) == ["a"]


@POSIX
@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    if there:
        target.write_bytes(b"note 1")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"note 2"


@POSIX
def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
    reading, writing = os.pipe()
    places = [tmp_path / "pipe", tmp_path / "folder", tmp_path / "to_pipe", Path("/dev/null"), Path("/dev/full")]
    for place in [*places, Path(f"/dev/fd/{writing}")]:
        with pytest.raises(FileExistsError, match="give the name of a file"):
            write(place)
    os.close(reading)
    os.close(writing)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert names(tmp_path) == ["folder", "pipe", "to_pipe"]


@POSIX
def test_permissions(tmp_path: Path) -> None:
    write(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    older = tmp_path / "older"
    older.write_bytes(b"note 1")
    older.chmod(0o644)
    write(older)
    assert stat.S_IMODE(older.stat().st_mode) == 0o644
    write(older, private=True)
    assert stat.S_IMODE(older.stat().st_mode) == 0o600


@POSIX
def test_a_missing_folder_and_a_circle_of_links(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*nowhere.a'$"):
        write(tmp_path / "nowhere" / "a")
    with pytest.raises(OSError, match="zero character"):
        write(tmp_path / "a\0b")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(OSError, match="circle"):
        write(tmp_path / "circle")
    assert names(tmp_path) == ["circle"]
