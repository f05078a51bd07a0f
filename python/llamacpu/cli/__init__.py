"""The `llamacpu` command line: one file per command, each imported on first use.

Results go to stdout, everything else to stderr. Exit status: 0 for success, 1 for an error described in one line on
stderr, 2 for wrong usage, 130 if interrupted.
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
        # Interrupted while modules were still being imported or an error was being reported.
        sys.exit(130)
