"""The log of the library: `logging.getLogger("llamacpu")`, of which nothing is printed until its user asks for it.

The standard library's `logging` is imported with the first entry, since it is a third of the time of `import llamacpu`.
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
        # Without its own handler, what nobody asked for would be printed.
        logger.addHandler(logging.NullHandler())
    return logger


def debug(message: str, *arguments: object) -> None:
    """An entry for those who look for a fault; `arguments` are put into the message as `logging` does it."""
    _logger().debug(message, *arguments, stacklevel=2)


def info(message: str, *arguments: object) -> None:
    """An entry about what was done."""
    _logger().info(message, *arguments, stacklevel=2)


def warning(message: str, *arguments: object) -> None:
    """An entry about what may not be what the user wants."""
    _logger().warning(message, *arguments, stacklevel=2)


def error(message: str, *arguments: object) -> None:
    """An entry about what went wrong."""
    _logger().error(message, *arguments, stacklevel=2)


def exception(message: str, *arguments: object) -> None:
    """An entry about what went wrong, with the exception that is being handled."""
    _logger().exception(message, *arguments, stacklevel=2)
