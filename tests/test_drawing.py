"""Markdown drawn while it is written: what stands on the screen, whatever pieces the text comes in."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rich")
pyte = pytest.importorskip("pyte")

from llamacpu.cli.drawing.markdown import Markdown  # noqa: E402
from llamacpu.cli.terminal import shown  # noqa: E402

OURS = re.compile(r"\x1b\[[\d;]*m|\x1b\[\d+D\x1b\[K|\x1b\]8;;(?:(?:https?://|mailto:)[!-~]+)?\x1b\\")


def output(*pieces: str, width: int = 80) -> str:
    out: list[str] = []
    page = Markdown(out.append, lambda: width)
    for piece in pieces:
        page.push(piece)
    page.flush()
    return "".join(out)


def screen(*pieces: str, width: int = 80) -> list[list[pyte.screens.Char]]:
    """The rows down to the cursor."""
    found = pyte.Screen(width, 100)
    found.set_mode(pyte.modes.LNM)
    pyte.Stream(found).feed(output(*pieces, width=width))
    return [[found.buffer[y][x] for x in range(width)] for y in range(found.cursor.y + 1)]


def rows(*pieces: str, width: int = 80) -> list[str]:
    lines = ["".join(cell.data for cell in row).rstrip() for row in screen(*pieces, width=width)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def style(text: str, wanted: str, width: int = 80) -> pyte.screens.Char:
    """How a text is drawn: its first character."""
    for row in screen(text, width=width):
        for place in range(width):
            if row[place].data and "".join(cell.data for cell in row[place : place + 2 * len(wanted)]).startswith(
                wanted
            ):
                return row[place]
    raise AssertionError(rows(text))


marked = st.lists(
    st.sampled_from(
        [*"ab *`_#-~[]()>|!\\1.&<\n", "\n", "\n\n", "**", "```", "```py\n", "| a | b |\n", "|---|---|\n", "- ", "1. ",
         "  ", "> ", "](http://x)", "日本", "。", "🎉", "e\u0301", "word ", "x = 1\n", "\t"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@given(marked, st.lists(st.integers(0, 200), max_size=6), st.sampled_from([12, 40, 80]))
def test_how_text_is_cut_changes_nothing(text: str, cuts: list[int], width: int) -> None:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    assert rows(*pieces, width=width) == rows(text, width=width) == rows(*text, width=width)


@given(st.text(max_size=60) | marked, st.sampled_from([4, 40]))
def test_a_terminal_gets_no_sequence_that_the_text_holds(text: str, width: int) -> None:
    left = OURS.sub("", output(*text, width=width))
    assert not [c for c in left if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    written = output(*text, width=width)
    styles = re.findall(r"\x1b\[([\d;]*)m", written)
    assert not styles or styles[-1] == "0", "the terminal is left as it was"
    assert written.count("\x1b]8;;") % 2 == 0


@given(marked)
def test_no_letter_is_lost(text: str) -> None:
    drawn = "".join(rows(text.replace("\\", "").replace("&", ""), width=60))
    wanted = re.sub(r"[^ab日本🎉]", "", text.replace("x = 1", ""))
    # Addresses are written as they are parsed, and the name of a language stands before its code.
    assert re.sub(r"[^ab日本🎉]", "", drawn.replace("x = 1", "")) == wanted


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=20), min_size=1, max_size=60), st.sampled_from([20, 40, 80]))
def test_words_are_never_divided_and_rows_are_full(words: list[str], width: int) -> None:
    found = rows(" ".join(words), width=width)
    assert " ".join(found).split() == words
    for row, following in itertools.pairwise(found):
        assert len(row) + 1 + len(following.split()[0]) > width


PROSE = (
    "Intro with *slanted words*, **strong words that go over the edge**, `code`, ~~gone~~, [a link]"
    "(https://example.org/x) and 2 * 3 = 6, 5*3, snake_case_name, array[0]."
)


def test_prose_is_wrapped_and_styled() -> None:
    assert rows(PROSE, width=40) == [
        "Intro with slanted words, strong words",
        "that go over the edge, code, gone, a",
        "link (https://example.org/x) and 2 * 3 =",
        "6, 5*3, snake_case_name, array[0].",
    ]
    assert style(PROSE, "slanted").italics
    assert style(PROSE, "strong").bold
    assert style(PROSE, "that go over", 40).bold
    assert style(PROSE, "code").fg == "cyan"
    assert style(PROSE, "gone").strikethrough
    assert style(PROSE, "a link").underscore
    assert not style(PROSE, "and 2").bold
    assert "\x1b]8;;https://example.org/x\x1b\\" in output(PROSE)


def test_lists_quotes_headings_and_rules() -> None:
    text = (
        "# Title\n\n\n- one\n  * nested item that goes over the edge\n    1. deep\n    1. deeper\n- [x] done\n"
        "- [ ] open\n\n9. nine\n   more of it\n10. ten\n\n> quoted words that go over the edge\n> > inner\n---\nend"
    )
    assert rows(text, width=30) == [
        "Title", "", "• one", "  ◦ nested item that goes over", "    the edge", "    1. deep", "    2. deeper",
        "☑ done", "☐ open", "", "9. nine", "   more of it", "10. ten", "", "▌ quoted words that go over",
        "▌ the edge", "▌ ▌ inner", "─" * 30, "end",
    ]  # fmt: skip
    assert style(text, "Title").bold


def test_code_keeps_its_lines_and_has_colours() -> None:
    text = 'see\n```python\ndef f(x):\n    """A\n    text"""\n    return "**" # ok\n```\n```nosuch\n*a* <b>\n```\n'
    assert rows(text) == [
        "see", "```python", "def f(x):", '    """A', '    text"""', '    return "**" # ok', "```", "```nosuch",
        "*a* <b>", "```",
    ]  # fmt: skip
    assert style(text, "def").fg != "default"
    assert style(text, '"**"').fg != style(text, "return").fg
    assert style(text, 'text"""').fg == style(text, '"""A').fg, "a string of two lines"
    assert rows("```\nno end", width=40) == ["```", "no end"]
    assert rows("- x\n  ```sh\n  ls\n  ```\n  after") == ["• x", "  ```sh", "  ls", "  ```", "  after"]


TABLE = "Before\n\n| Name | Value |\n|:--|--:|\n| `a` | 1 |\n| **long words in a cell** | 22 |\n\nAfter"


def test_tables_are_aligned_and_fit_the_width() -> None:
    assert rows(TABLE, width=40) == [
        "Before", "", "Name                   Value", "────────────────────────────",
        "a                          1", "long words in a cell      22", "", "After",
    ]  # fmt: skip
    assert rows("| a | b |\n|---|---|\n| x <br> y | z |")[2:] == ["x   z", "y"]
    narrow = rows(TABLE, width=16)
    assert all(len(row) <= 16 for row in narrow)
    assert "words in a cell" in " ".join(narrow)
    assert style(TABLE, "long").bold
    for no_table in ("| a | b |\n", "| a | b |\nand more", "|x|\n|y|\n", "|"):
        assert rows(no_table) == no_table.rstrip("\n").split("\n")


def test_wide_characters_are_wrapped_within_the_edge() -> None:
    found = rows("日本語の文章は空白なしで書かれます。**太字**も。🎉🎉", width=15)
    assert found == ["日本語の文章は", "空白なしで書か", "れます。太字", "も。🎉🎉"]
    assert style("ます。**太字**も", "太").bold


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "http://x\x1b]8;;y", "https://x y", "ssh://h"],
)
def test_addresses_that_are_not_of_the_web_are_text_alone(address: str) -> None:
    written = output(f"[text]({address}) ![image]({address}) <{address}>")
    opened = re.findall(r"\x1b\]8;;([^\x1b]*)\x1b", written)
    assert not [link for link in opened if link and not link.startswith(("http://x%", "https://x"))]


def test_what_is_held_back_is_seen_until_it_is_drawn() -> None:
    out: list[str] = []
    page = Markdown(out.append, lambda: 40)
    found = pyte.Screen(40, 5)
    found.set_mode(pyte.modes.LNM)
    stream = pyte.Stream(found)

    def after(text: str) -> str:
        page.push(text)
        stream.feed("".join(out))
        out.clear()
        return str(found.display[0]).rstrip()

    assert after("Some **bo") == "Some **bo"
    assert after("ld words") == "Some **bold words"
    assert after("**") == "Some **bold words**"
    assert after(" and *") == "Some bold words and *"
    assert found.buffer[0][5].bold


def test_the_width_may_change_while_it_is_written() -> None:
    out: list[str] = []
    width = 80
    page = Markdown(out.append, lambda: width)
    page.push("word " * 10)
    width = 20
    page.push("word " * 10)
    page.flush()
    written = OURS.sub("", "".join(out)).split("\n")
    assert [len(row) for row in written[1:-1]] == [19] * (len(written) - 2)


def test_long_hostile_lines_take_no_time_to_speak_of() -> None:
    for text in (
        "*a " * 3000,
        "[" * 3000,
        "`" * 3000,
        "> " * 3000 + "a",
        "- " * 3000,
        "|" * 3000,
        "#" * 3000,
        "a" * 9000,
    ):
        assert rows(text, width=40)


def test_nothing_of_it_is_imported_before_it_draws() -> None:
    code = "import sys, llamacpu.cli.run; print(*sorted({'rich', 'markdown_it', 'prompt_toolkit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_control_characters_are_shown() -> None:
    assert shown("a\x1b[31mb\x07\x7f\x9b1m\r\nc\td\u202e") == "a␛[31mb␇␡\ufffd1m\nc\td\ufffd"
