"""Modules that are imported by name when they are first used, and the data files: templates and the demo model."""

# ruff: noqa: N999 (PyInstaller looks for this name)

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

# The window would bring Tk into every program, the classes for LangChain and Ray these two wherever they are installed;
# a program that imports one of them has it.
_NOT_FROZEN = (
    "llamacpu._pyinstaller", "llamacpu.integrations.llm_plugin", "llamacpu.integrations.langchain", "llamacpu.ray",
    "llamacpu.window", "llamacpu.cli.window",
)  # fmt: skip

hiddenimports = collect_submodules("llamacpu", filter=lambda name: not name.startswith(_NOT_FROZEN))
datas = collect_data_files("llamacpu", excludes=["**/*.pyi"])
