"""Items loaded ahead of their use: in worker processes, in threads, or here, always in order and never many at once."""

from __future__ import annotations

import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice

import cv2
import loky
import torch
from loky.backend import get_context

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.metrics.preparation import Preparation, Prepared
from portraitzoo.metrics.sources import Item

WORTH_PROCESSES = 64
"""Items from which processes are started; fewer are decoded by threads before a process has begun."""

AHEAD = 2
"""Items to each worker that are decoded or waiting: what decoding may be ahead of the networks."""

Loaded = Prepared | ZooError


def decoded(preparation: Preparation, items: Sequence[Item], workers: int) -> Generator[Loaded]:
    """The items in order, or what is wrong with each; at most ``2 * workers`` are held besides those handed out.

    Folders of many items are decoded by worker processes, and by threads until these have started. In a process, a
    file that makes its decoder crash takes only that process along and is reported like any other broken one. Clips in
    memory and few items are for threads; models draw in this thread. Close the generator, which ends the processes;
    left to the garbage collector, which may come at any moment in any thread, ending them can wait for ever.

    Args:
        preparation: how items are loaded.
        items: which ones.
        workers: processes or threads; 0 decodes in this thread.
    """
    if not preparation.source.threaded:
        # What a model draws is no matter of single broken items: its first error ends the evaluation.
        return (preparation.load(item) for item in items)
    if workers < 1:
        return (preparation.load_or_say_why(item) for item in items)
    if preparation.source.portable and len(items) >= WORTH_PROCESSES:
        return _in_processes(preparation, items, workers)
    return _in_threads(preparation, items, workers)


def _in_threads(
    preparation: Preparation, items: Sequence[Item], workers: int, stop: Callable[[], bool] = lambda: False
) -> Generator[Loaded]:
    with ThreadPoolExecutor(workers) as pool:
        yield from _ahead(pool, preparation.load_or_say_why, items, AHEAD * workers, stop)


def _in_processes(preparation: Preparation, items: Sequence[Item], workers: int) -> Generator[Loaded]:
    pool = _pool(preparation, workers)
    try:
        # Processes take seconds to start, in which threads do their work.
        ready = pool.submit(bool, 1)
        position = 0
        with closing(_in_threads(preparation, items, workers, ready.done)) as threads:
            for found in threads:
                position += 1
                yield found
        if position < len(items) and ready.exception() is not None:
            warnings.warn("worker processes cannot start here: threads decode instead", RuntimeWarning, stacklevel=2)
            yield from _in_threads(preparation, items[position:], workers)
            return
        while position < len(items):
            try:
                with closing(_ahead(pool, _load, items[position:], AHEAD * workers)) as loading:
                    for found in loading:
                        position += 1
                        yield found
            except BrokenProcessPool:
                # One of those under way made a worker crash. Alone it shows whether it was the next one.
                pool.shutdown(wait=False, kill_workers=True)
                yield _alone(preparation, items[position])
                position += 1
                pool = _pool(preparation, workers)
    finally:
        pool.shutdown(wait=False, kill_workers=True)


def _alone(preparation: Preparation, item: Item) -> Loaded:
    pool = _pool(preparation, 1)
    try:
        return pool.submit(_load, item).result()
    except BrokenProcessPool:
        return MediaError(f"{item.name} makes its decoder crash: remove it or convert it anew")
    finally:
        pool.shutdown(wait=False, kill_workers=True)


def _pool(preparation: Preparation, workers: int) -> loky.ProcessPoolExecutor:
    """Fresh processes (no forks: those inherit locks of threads and a GPU), which never run the user's script."""
    return loky.ProcessPoolExecutor(
        workers, context=get_context("loky"), initializer=_begin, initargs=(preparation,), env={"OMP_NUM_THREADS": "1"}
    )


_preparation: Preparation
"""Of this worker process."""


def _begin(preparation: Preparation) -> None:
    global _preparation
    _preparation = preparation
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _load(item: Item) -> Loaded:
    return _preparation.load_or_say_why(item)


def _ahead(
    pool: Executor,
    load: Callable[[Item], Loaded],
    items: Iterable[Item],
    most: int,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Loaded]:
    """Results in order, ``most`` of them under way; once ``stop`` says so, those under way are the last."""
    under_way: deque[Future[Loaded]] = deque()
    remaining = iter(items)
    try:
        while True:
            room = 0 if stop() else most - len(under_way)
            under_way.extend(pool.submit(load, item) for item in islice(remaining, room))
            if not under_way:
                return
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
