"""For PyInstaller, which finds this folder through an entry point: what a frozen program needs of llamacpu."""

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folder with the hook."""
    return [str(Path(__file__).parent)]
