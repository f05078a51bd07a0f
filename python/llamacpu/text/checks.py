"""Texts from outside: what no file and no tokenizer can hold."""

__all__ = ["check_text"]


def check_text(text: str, what: str = "the text") -> None:
    """Raises ValueError for half of a surrogate pair, which Python's strings may hold and UTF-8 does not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} has half of a surrogate pair, {text[error.start]!r}, at character {error.start}; "
            "write the whole character, or leave it out"
        ) from None
