"""Threads that run a function of a kernel together, each once for a whole sequence.

Where the process has an OpenMP runtime, as it has with torch, its team does the work: its threads
stay awake for a while after each of torch's operations, and a thread of our own would have to
share a core with them. Elsewhere a small pool of our own threads does it.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
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


def run_together(function: int, table: int, threads: int) -> None:
    """Call a function of a kernel on some threads, the caller's one among them.

    Args:
        function: its address.
        table: the address of its table; see `team`.
        threads: how many are asked to come. The work is done, too, if fewer come.
    """
    openmp = find_team() if threads > 1 else None
    if openmp is not None:
        openmp(function, table, threads, 0)
        return
    call = _callable(function)
    waiting: list[Future[Any]] = [_threads().submit(call, table) for _ in range(threads - 1)]
    call(table)
    for one in waiting:
        if not one.cancel():  # who has not begun by now is not needed any more
            one.result()


@cache
def _callable(function: int) -> Callable[[int], Any]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)


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
