"""Where the time of a command went, by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

WAITING, NETWORK = "waiting for crops", "network"
"""Phases that training and inference share."""


class Stopwatch:
    """Adds up wall time by phase. Phases do not overlap: what runs inside another is taken from it.

    On a GPU these are times of the host, which waits for the device where it reads a loss.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what runs inside to a phase."""
        self._turn()
        self._running.append(phase)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        """Give the time since the last turn to the phase that was running."""
        now = time.perf_counter()
        if self._running:
            phase = self._running[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now

    @property
    def in_words(self) -> str:
        """Phases that took at least 0.1 % of the total, the longest first; empty before anything was measured."""
        total = sum(self.seconds.values())
        shares = sorted(self.seconds.items(), key=lambda item: -item[1])
        parts = [f"{phase} {100 * part / total:.1f} %" for phase, part in shares if part >= 0.001 * total > 0]
        return f"{total:.1f} s: {', '.join(parts)}" if parts else ""
