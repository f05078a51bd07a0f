"""Stop strings in a stream: text is let through as soon as it cannot become part of one."""

from collections.abc import Iterable

from llamacpu.text.checks import check_text


class StopStrings:
    """Holds text back while it may turn into a stop string.

    The stop string itself and what follows it never come out. The one that is complete first counts; of several
    in the same piece of text, the one that begins first.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        """Raises ValueError for an empty stop string: everything would stop there."""
        self._stops = (stops,) if isinstance(stops, str) else tuple(stops)
        for stop in self._stops:
            if not isinstance(stop, str) or not stop:
                raise ValueError(f"a stop string is {stop!r}; expected a text that is not empty")
            check_text(stop, "a stop string")
        self._held = ""
        # Of every letter that is held, whether it is part of what comes out.
        self._shown: list[bool] = []
        self.found: str | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._stops)

    def push(self, text: str, shown: bool = True) -> str:
        """Add text; return what is certain. After a stop string was found nothing more comes out.

        shown: False for the name of a control token, which counts but is not part of the text.
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
        """The text ends here: what was held back is certain now."""
        return self._out(len(self._held))

    def _out(self, count: int) -> str:
        """Take the first letters that are held; those of them that are shown."""
        taken = "".join(letter for letter, shown in zip(self._held[:count], self._shown, strict=False) if shown)
        self._held, self._shown = self._held[count:], self._shown[count:]
        return taken

    def _unfinished(self, held: str) -> int:
        """Length of the longest end of `held` that begins a stop string."""
        most = min(len(held), max((len(stop) for stop in self._stops), default=1) - 1)
        for length in range(most, 0, -1):
            if any(stop.startswith(held[len(held) - length :]) for stop in self._stops):
                return length
        return 0
