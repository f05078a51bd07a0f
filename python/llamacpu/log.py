"""The library's log, `logging.getLogger("llamacpu")`, which prints nothing until the user asks for it.

The standard library's `logging` is imported with the first entry, since it takes a third of the time of
`import llamacpu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

__all__ = ["debug", "error", "exception", "info", "warning"]


def _logger() -> logging.Logger:
    import logging

    logger = logging.getLogger("llamacpu")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        # Without a handler of its own, messages nobody asked for would be printed.
        logger.addHandler(logging.NullHandler())
    return logger


def debug(message: str, *arguments: object) -> None:
    """Log details that help to diagnose a fault; `arguments` are formatted into the message as in `logging`."""
    _logger().debug(message, *arguments, stacklevel=2)


def info(message: str, *arguments: object) -> None:
    """Log what was done."""
    _logger().info(message, *arguments, stacklevel=2)


def warning(message: str, *arguments: object) -> None:
    """Log something that may not be what the user wants."""
    _logger().warning(message, *arguments, stacklevel=2)


def error(message: str, *arguments: object) -> None:
    """Log an error."""
    _logger().error(message, *arguments, stacklevel=2)


def exception(message: str, *arguments: object) -> None:
    """Log an error, with the exception that is being handled."""
    _logger().exception(message, *arguments, stacklevel=2)
