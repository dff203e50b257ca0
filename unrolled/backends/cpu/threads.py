"""Threads for the rows of a batch, which are spread over them once for a whole sequence.

Where the process has an OpenMP runtime, as it has with torch, its team does the work: its threads
stay awake for a while after each of torch's operations, and a thread of our own would have to
share a core with them. Elsewhere a small pool of our own threads does it.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

Team = Callable[[int, int, int, int], Any]

_team: Team | None = None
_pool: ThreadPoolExecutor | None = None
_forked = False


def find_team() -> Team | None:
    """OpenMP's call `(function, data, threads, flags)`; None if the process has no runtime.

    A forked process has none either: its parent's team did not come along.
    """
    global _team
    if _team is None and not _forked and os.name == "posix":
        call = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
        if call is not None:
            call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            call.restype = None
        _team = call
    return _team


def run_in_parts(parts: int, batch: int, work: Callable[[int, int], Any]) -> None:
    """Call `work(first, last)` for parts of the batch's rows, on a thread each.

    The parts share nothing that is written, so they need not wait for each other. The caller's
    thread does the first part itself.
    """
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
    global _pool, _team, _forked
    _pool = _team = None
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
