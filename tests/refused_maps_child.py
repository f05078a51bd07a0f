"""A model in a process whose system refuses file maps: shared ones as some network and FUSE file systems do, or all.

usage: refused_maps_child.py shared|all FILE     prints a JSON list: the logits of a few tokens

The filter is Linux's seccomp, which makes `mmap` fail in the kernel's place, whoever calls it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import struct
import sys
from pathlib import Path

import llamacpu

X86_64, MMAP = 0xC000003E, 9
MAP_SHARED = 1
NO_DESCRIPTOR = 0xFFFFFFFF
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | errno.ENODEV
# Places in `struct seccomp_data`; then the instructions: load a word, jump if equal or if a bit is set, return.
NUMBER, ARCHITECTURE, FLAGS, DESCRIPTOR = 0, 4, 16 + 8 * 3, 16 + 8 * 4
LOAD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06


def refuse_maps(which: str) -> None:
    """From now on `mmap` of a file fails with ENODEV, if it is shared or in any case."""
    shared_bit = MAP_SHARED if which == "shared" else 0xFFFFFFFF
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 0, 7, X86_64),
        (LOAD, 0, 0, NUMBER),
        (JUMP_EQUAL, 0, 5, MMAP),
        (LOAD, 0, 0, DESCRIPTOR),
        (JUMP_EQUAL, 3, 0, NO_DESCRIPTOR),
        (LOAD, 0, 0, FLAGS),
        (JUMP_SET, 0, 1, shared_bit),
        (RETURN, 0, 0, FAIL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *instruction) for instruction in program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(set_no_new_privileges, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    given = Program(len(program), ctypes.addressof(code))
    if libc.prctl(set_seccomp, filter_mode, ctypes.byref(given)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def main(which: str, path: str) -> None:
    # First as ever, since what is imported late is mapped, too.
    with llamacpu.Model(path) as model:
        wanted = model.session().forward([2, 3, 4])
    try:
        refuse_maps(which)
    except OSError as error:
        sys.stdout.write(json.dumps({"skip": str(error)}))
        return
    flags = mmap.MAP_SHARED if which == "shared" else mmap.MAP_PRIVATE
    try:
        with Path(path).open("rb") as file:
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=flags)
        refused = False
    except OSError:
        refused = True
    with llamacpu.Model(path) as model:
        equal = bool((model.session().forward([2, 3, 4]) == wanted).all())
    sys.stdout.write(json.dumps({"refused": refused, "equal": equal}))


if __name__ == "__main__":
    main(*sys.argv[1:])
