"""How many threads kernels share their work out to."""

import os

from .errors import InputError

VARIABLE = "UNROLLED_THREADS"

# Calls of layers ask whether the variable is set. That it is not `os.environ` finds out by two
# exceptions, which takes 2 µs; the dictionary behind it knows at once.
_KEY = os.environ.encodekey(VARIABLE)
_environment = os.environ._data  # type: ignore[attr-defined]

_chosen: int | None = None


def set_num_threads(count: int | None) -> None:
    """Let the kernels of `unrolled.nn` run on this many threads, whatever torch does.

    What torch itself computes, such as the eager backend, runs on torch's threads.

    Args:
        count: threads, 1 or more. None, the default: as many as the environment variable
            `UNROLLED_THREADS` says or, where it is not set, `torch.get_num_threads()`.

    Raises:
        InputError: if it is not a whole number from 1 on.
    """
    global _chosen
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"a number of threads is a whole number from 1 on; found {count!r}.")
    _chosen = count


def num_threads() -> int | None:
    """How many threads were asked for, by `set_num_threads` or the environment; None if nobody did.

    Raises:
        InputError: if the environment variable holds no whole number from 1 on.
    """
    if _chosen is not None:
        return _chosen
    if _KEY not in _environment:
        return None
    text = os.environ[VARIABLE]
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{VARIABLE} is a whole number from 1 on; found {text!r}.")
    return int(text)
