"""Validation of text from outside: what neither a file nor a tokenizer can represent."""

__all__ = ["check_text"]


def check_text(text: str, what: str = "the text") -> None:
    """Raise ValueError if the text has a lone surrogate, which a Python string can hold but UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} has half of a surrogate pair, {text[error.start]!r}, at character {error.start}; "
            "write the whole character, or leave it out"
        ) from None
