"""Progress on stderr: a bar with rate and remaining time in a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..evaluation import Reporter

LINE_EVERY = 10.0  # seconds between plain lines


class ConsoleReporter(Reporter):
    """Use as a context: Ctrl-C then asks the work to stop resumably; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.asked = False
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._title, self._total, self._began, self._spoke = "", 1.0, 0.0, 0.0

    def __enter__(self) -> ConsoleReporter:
        self._previous = [(s, signal.signal(s, self._ask)) for s in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *_: Any) -> None:
        self._close()
        for number, handler in self._previous:
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.say("Stopping after this step (Ctrl-C again stops at once) …")

    def stopping(self) -> bool:
        return self.asked

    def stage(self, title: str, total: float) -> None:
        self._close()
        self._title, self._total = title, max(total, 1e-9)
        self._began = self._spoke = time.monotonic()
        if not self.console.is_terminal:
            self._print(f"{title} …")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self._bar = Progress(*columns, console=self.console, transient=False)
        self._bar.start()
        self._task = self._bar.add_task(title, total=self._total, detail="")

    def advance(self, done: float, detail: str = "") -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, detail=detail)
            return
        now = time.monotonic()
        if now - self._spoke > LINE_EVERY:
            self._spoke = now
            share = done / self._total
            left = (now - self._began) * (1 / share - 1) if share > 0 else float("nan")
            self._print(f"  {self._title}: {share:4.0%}, about {left:.0f} s left  {detail}")

    def say(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        sys.stderr.flush()

    def _close(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._total)
            self._bar.stop()
        self._bar = self._task = None
