"""Stop strings in a stream: text is let through as soon as it cannot become part of one."""

from collections.abc import Iterable


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
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Add text; return what is certain. After a stop string was found nothing more comes out."""
        if self.found is not None:
            return ""
        held = self._held + text
        places = [(place, -len(stop), stop) for stop in self._stops if (place := held.find(stop)) >= 0]
        if places:
            place, _, stop = min(places)
            self.found = stop
            self._held = ""
            return held[:place]
        keep = self._unfinished(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """The text ends here: what was held back is certain now."""
        held, self._held = self._held, ""
        return held

    def _unfinished(self, held: str) -> int:
        """Length of the longest end of `held` that begins a stop string."""
        most = min(len(held), max((len(stop) for stop in self._stops), default=1) - 1)
        for length in range(most, 0, -1):
            if any(stop.startswith(held[len(held) - length :]) for stop in self._stops):
                return length
        return 0
