"""Our own small pool of threads: the rows of a batch are spread over it, once a sequence."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

_pool: ThreadPoolExecutor | None = None


def run_in_rows(threads: int, batch: int, work: Callable[[int, int], Any]) -> None:
    """Call `work(first, last)` for parts of the batch's rows, on up to `threads` threads.

    The parts share nothing that is written, so they need not wait for each other. The caller's
    thread does the first part itself.
    """
    parts = min(threads, batch)
    if parts <= 1:
        work(0, batch)
        return
    ends = [batch * part // parts for part in range(parts + 1)]
    waiting: list[Future[Any]] = [
        _threads().submit(work, first, last) for first, last in pairwise(ends[1:])
    ]
    work(0, ends[1])
    for part in waiting:
        part.result()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="unrolled")
    return _pool


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
