"""The command `llamacpu`: one file a command, each imported when it is used.

stdout carries the product, stderr everything else. Exit status: 0 done, 1 an error that one line on stderr
describes, 2 wrong usage, 130 interrupted.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        from llamacpu.cli.group import command_line
        from llamacpu.cli.streams import open_standard_streams

        open_standard_streams()
        command_line()
    except KeyboardInterrupt:
        # Interrupted while modules were still being imported, or while errors were being told.
        sys.exit(130)
