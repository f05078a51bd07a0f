"""Stop strings in a stream: text is released as soon as it can no longer become part of one."""

from collections.abc import Iterable

from llamacpu.text.checks import check_text


class StopStrings:
    """A filter that holds text back while it may turn into a stop string.

    The stop string itself and everything after it are never returned. The stop string that is completed first counts;
    if several are completed by the same piece of text, the one that begins first.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        """Raise ValueError for an empty stop string, which would match everywhere, and for a lone surrogate in one."""
        self._stops = (stops,) if isinstance(stops, str) else tuple(stops)
        for stop in self._stops:
            if not isinstance(stop, str) or not stop:
                raise ValueError(f"a stop string is {stop!r}; expected a text that is not empty")
            check_text(stop, "a stop string")
        self._held = ""
        # For each held character, whether it is part of the output.
        self._shown: list[bool] = []
        self.found: str | None = None

    def __bool__(self) -> bool:
        """Whether there are any stop strings."""
        return bool(self._stops)

    def push(self, text: str, shown: bool = True) -> str:
        """Add text and return what can be released. Once a stop string has been found, nothing more is returned.

        shown: False for the name of a control token, which can match a stop string but is not part of the output.
        """
        if self.found is not None:
            return ""
        self._held += text
        self._shown += [shown] * len(text)
        places = [(place, -len(stop), stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            place, _, stop = min(places)
            self.found = stop
            certain = self._out(place)
            self._held, self._shown = "", []
            return certain
        return self._out(len(self._held) - self._unfinished(self._held))

    def flush(self) -> str:
        """End the text and return what was held back."""
        return self._out(len(self._held))

    def _out(self, count: int) -> str:
        """Remove the first `count` held characters and return those that are part of the output."""
        taken = "".join(letter for letter, shown in zip(self._held[:count], self._shown, strict=False) if shown)
        self._held, self._shown = self._held[count:], self._shown[count:]
        return taken

    def _unfinished(self, held: str) -> int:
        """The length of the longest suffix of `held` that is a proper prefix of a stop string."""
        most = min(len(held), max((len(stop) for stop in self._stops), default=1) - 1)
        for length in range(most, 0, -1):
            if any(stop.startswith(held[len(held) - length :]) for stop in self._stops):
                return length
        return 0
