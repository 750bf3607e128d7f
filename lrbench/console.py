"""Progress for people: bars on a terminal, plain lines in a pipe, nothing on stdout."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Reporter:
    """Shows the progress of long work on stderr; use as a context manager and call it.

    On a terminal there is one bar per kind of work; elsewhere a plain line at the start of each kind of work, then at
    most one every `seconds`, and one at its end.

    Args:
        quiet: show nothing.
        seconds: between plain lines.
    """

    def __init__(self, quiet: bool = False, seconds: float = 10.0) -> None:
        self.quiet = quiet
        self.seconds = seconds
        self.context = ""
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of some work are done."""
        if self.quiet:
            return
        if sys.stderr.isatty():
            self._bar(what, done, total, note)
        else:
            self._line(what, done, total, note)

    def say(self, text: str) -> None:
        """One line, whatever stderr is."""
        if not self.quiet:
            self.close()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bars down."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def _bar(self, what: str, done: int, total: int, note: str) -> None:
        if what == "epoch":  # the training bar shows it already
            return
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        label = f"{self.context} {what}".strip()
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total, note=note)
        self._bars.update(self._tasks[label], completed=done, total=total, note=note)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(label))

    def _line(self, what: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if what == "epoch" or done >= total or now - self._last.get(what, -1e9) >= self.seconds:
            self._last[what] = now
            prefix = f"{self.context}: " if self.context else ""
            print(f"{prefix}{what} {done}/{total}{', ' + note if note else ''}", file=sys.stderr, flush=True)
