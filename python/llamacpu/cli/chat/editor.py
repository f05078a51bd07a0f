"""Message input with prompt_toolkit: multi-line editing, history, search, completion and an external editor.

Pasted text is always one message, because prompt_toolkit turns on the terminal's bracketed paste.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from llamacpu.cli.chat import history
from llamacpu.cli.chat.completion import completions
from llamacpu.cli.chat.lines import CONTINUED, PROMPT
from llamacpu.cli.terminal import tell

__all__ = ["Editor"]

_FENCE = '"""'


class Editor:
    """A reader of messages with prompt_toolkit."""

    def __init__(self, place: Path | None) -> None:
        """place: the history file; None keeps the history for this conversation only."""
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            # The multi-line layout fills the screen when searching; new lines come from the keys below and from pastes.
            multiline=False,
            # Rows that result from wrapping a long line are not separate lines.
            prompt_continuation=lambda width, _line, folded: " " * width if folded else CONTINUED,
            history=_Kept(place),
            completer=_Completer(),
            complete_while_typing=False,
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            key_bindings=_keys(),
            reserve_space_for_menu=4,
            # If stdout is a pipe or a file, it must get only the answers.
            output=create_output(always_prefer_tty=True),
        )
        # Terminals that cannot report the cursor position work too; a warning would help nobody.
        self._session.app.renderer.cpr_not_supported_callback = None

    def read(self) -> str:
        """Read a message. Raises EOFError at the end of the input, KeyboardInterrupt for Ctrl-C on an empty line."""
        try:
            text = self._session.prompt()
        except KeyboardInterrupt:
            if self._session.default_buffer.text:
                return ""  # the typed text is discarded
            raise
        if text.startswith(_FENCE) and text.rstrip().endswith(_FENCE) and text.count(_FENCE) == 2:
            return text.strip()[len(_FENCE) : -len(_FENCE)].strip("\n")
        return text


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif buffer.text.startswith(_FENCE) and buffer.text.count(_FENCE) == 1:
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class _Completer(Completer):
    def get_completions(self, document: Document, _event: CompleteEvent) -> Iterable[Completion]:
        for replaced, text in completions(document.text_before_cursor):
            shown = text.rstrip("/").rpartition("/")[2] + ("/" if text.endswith("/") else "")
            yield Completion(text, -len(replaced), display=text if text.startswith("/") else shown)


class _Kept(History):
    """History in a file; if the file cannot be read or written, this is reported once and memory is used instead."""

    def __init__(self, place: Path | None) -> None:
        super().__init__()
        self._place = place

    def load_history_strings(self) -> Iterable[str]:
        if self._place is None:
            return []
        try:
            return reversed(history.read(self._place))
        except OSError as error:
            self._give_up(error)
            return []

    def store_string(self, string: str) -> None:
        if self._place is None:
            return
        try:
            history.append(self._place, string)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._place = None
        tell(history.trouble(error))
