"""How many tokens to propose: as many as are expected to pay off, within a budget that has been earned."""

from __future__ import annotations

from llamacpu.drafting.cost import StepCost

# The prior: how often the next token of a proposal is right before anything has been observed, by the number of binary
# digits of the match length (0: unknown, 1: one token, 2: 2 and 3, 3: 4 to 7, ...).
_BELIEF = (0.6, 0.2, 0.35, 0.5, 0.7, 0.85)
_BELIEF_WEIGHT = 2.0
# How much of the older evidence remains after each new observation.
_MEMORY = 0.95
# The account, in passes over one token: its value at the start of a generation, what every pass adds, its bounds.
_START = 0.5
_INCOME = 0.02
_MOST = 4.0
_LEAST = -1.0
# How many times as long a proposal may make a pass that other texts share: they wait for it and gain nothing.
_MOST_SHARED = 1.1


class AdaptiveLength:
    """Weighs the chance that proposals are right against the cost of checking them.

    It keeps an account of the time that proposals have saved and lost, and proposes only what the account can pay for
    if all of it is wrong. So a text that never confirms a proposal becomes slower by at most `_INCOME` (2 %) and
    `_START` passes.
    """

    def __init__(self, cost: StepCost, longest: int, whole: bool = False) -> None:
        """whole: a proposal costs the same whatever its length; otherwise in proportion to it."""
        self._cost = cost
        self._longest = longest
        self._whole = whole
        self._right = [0.0] * len(_BELIEF)
        self._tried = [0.0] * len(_BELIEF)
        self._account = _START
        self._effort = 0.0
        # Tokens of other texts in the pass of the last choice.
        self._others = 0

    def chance(self, strength: int) -> float:
        """The chance that the next token of a proposal is right, given the length of its match (0: unknown)."""
        place = _class_of(strength)
        belief = _BELIEF_WEIGHT * _BELIEF[place]
        return (self._right[place] + belief) / (self._tried[place] + _BELIEF_WEIGHT)

    def choose(self, strength: int, room: int, watched: bool, others: int = 0) -> int:
        """How many tokens to propose, at most `room`; 0 if that pays off best.

        watched: whether proposals that are not made are still compared with the text. If not, one is made now and then.
        others: tokens of other texts in the same pass. A proposal then has to lengthen the pass by less, relatively,
        than it adds to the tokens of all texts together, and never by much.
        """
        self._others = others
        if not self._cost.known:
            return 0
        best, best_rate = 0, 1.0
        expected = likely = 1.0
        for count in range(1, min(self._longest, room) + 1):
            likely *= self.chance(_later(strength, count - 1))
            expected += likely
            cost = self._passes(count)
            if cost - 1 > self._account or (others and cost > _MOST_SHARED):
                break
            if not watched and best == 0 and count == 1:
                best = 1
            rate = (others + expected) / (others + 1) / cost
            if rate > best_rate:
                best, best_rate = count, rate
        return best

    def passed(self) -> None:
        """Record that a pass through the model is done."""
        self._account = min(self._account + _INCOME, _MOST)

    def seen(self, strength: int, right: int, wrong: bool) -> None:
        """Record that the first `right` tokens of a proposal were right; `wrong`: the next one was not."""
        for count in range(right):
            self._note(_later(strength, count), 1.0)
        if wrong:
            self._note(_later(strength, right), 0.0)

    def paid(self, count: int, right: int, seconds: float) -> None:
        """Record that of a proposal of `count` tokens, made in `seconds`, `right` tokens were confirmed."""
        effort = seconds / self._cost.seconds if self._cost.seconds else 0.0
        if count:
            share = 0.2 if self._effort else 1.0
            self._effort += share * (min(effort / (1 if self._whole else count), 1.0) - self._effort)
        balance = right / (self._others + 1) - (self._longer(count) - 1) - effort
        self._account = min(max(self._account + balance, _LEAST), _MOST)

    def _passes(self, count: int) -> float:
        """The cost of making and checking a proposal, in passes over one token."""
        return self._longer(count) + (1 if self._whole else count) * self._effort

    def _longer(self, count: int) -> float:
        """How many times as long `count` proposed tokens make the pass."""
        least = self._others + 1
        return self._cost.ratio(least + count) / self._cost.ratio(least)

    def _note(self, strength: int, right: float) -> None:
        place = _class_of(strength)
        self._right[place] = self._right[place] * _MEMORY + right
        self._tried[place] = self._tried[place] * _MEMORY + 1.0


def _class_of(strength: int) -> int:
    return min(strength.bit_length(), len(_BELIEF) - 1)


def _later(strength: int, count: int) -> int:
    """The length of a match after `count` more tokens have confirmed it."""
    return strength + count if strength else 0
