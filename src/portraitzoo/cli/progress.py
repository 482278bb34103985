"""Progress of long work: a bar on a terminal, plain lines elsewhere, always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how much of ``total`` is done.

    Args:
        title: what is being done, in a few words.
        total: number that means finished; None if nobody knows.

    Yields:
        A function that takes how much is done so far (not since the last call).
    """
    if sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show the progress of work that goes through several stages, each with a total of its own.

    Yields:
        A function that takes what is being done, how much of it is done and how much there is.
    """
    with ExitStack() as stack:
        shown: dict[str, Callable[[int], None]] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in shown:
                stack.close()
                shown[what] = stack.enter_context(progress(what, total))
            shown[what](done)

        yield report


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(title, total=total)
        yield lambda done: display.update(task, completed=done)


def _lines(title: str, total: int | None) -> Callable[[int], None]:
    began = last = time.monotonic()
    before: int | None = None

    def report(done: int) -> None:
        nonlocal last, before
        now = time.monotonic()
        if before is None:
            before = done  # what was there when this run began took no time of it
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            line = f"{title}: {done}" + (f"/{total}" if total is not None else "")
            if total is not None and done > before:
                line += f", {duration((now - began) * (total - done) / (done - before))} to go"
            print(line, file=sys.stderr, flush=True)

    return report


def duration(seconds: float) -> str:
    """A time in the largest two of hours, minutes and seconds, as ``2 h 5 min``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
