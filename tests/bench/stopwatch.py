"""A stage's progress line that also remembers how long each step took that the program stated."""

import time
from typing import Dict, Optional

from launch.core.progress import Progress

UNNAMED = "before its first step"
"""The time until a program states what it does: the interpreter starts."""


class Stopwatch(Progress):
    """A :class:`Progress` that times the steps it is told."""

    def __init__(self, label: str, expected: Optional[float]) -> None:
        self._spent: Dict[Optional[str], float] = {}
        self._current: Optional[str] = None
        self._since = time.monotonic()
        super().__init__(label, expected)

    def tick(self, step: Optional[str]) -> None:
        """Show the time and the step; a step that was not yet current begins now."""
        if step != self._current:
            self._book()
            self._current = step
        super().tick(step)

    def _book(self) -> None:
        now = time.monotonic()
        self._spent[self._current] = self._spent.get(self._current, 0.0) + now - self._since
        self._since = now

    def steps(self) -> Dict[str, float]:
        """Return the wall seconds of each step until now, in the order they began; none if none was told."""
        self._book()
        if set(self._spent) == {None}:
            return {}
        return {UNNAMED if name is None else name: seconds for name, seconds in self._spent.items()}
