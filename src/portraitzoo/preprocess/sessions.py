"""Work on many clips that can be stopped and taken up again: whose folder it is, and the processes that do it."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import torch

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing

Job = TypeVar("Job")
Result = TypeVar("Result")


def claim(root: Path, settings: dict[str, object]) -> None:
    """Note the settings of a session in its folder; clips of other settings must not mix with it.

    Raises:
        ZooError: if the folder holds a session of other settings.
    """
    note = root / "session.json"
    if note.exists():
        try:
            found = json.loads(note.read_text())
        except ValueError:
            found = None
        if found != settings:
            raise ZooError(f"{root} holds clips of another session ({found}): choose an empty folder or its settings")
        return
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(settings))


def run_jobs(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Results of the jobs as they are finished.

    Args:
        work: a function of a module, so that other processes find it.
        jobs: what to do.
        workers: processes; 1 does the work in this one.
    """
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            yield work(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread) as pool:
        pending = {pool.submit(work, job) for job in jobs}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    torch.set_num_threads(1)
