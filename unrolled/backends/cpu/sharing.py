"""How the work of a pass is shared out to threads.

Threads take rows of the batch, which know nothing of each other. Where there are too few rows for
that, they share the units of each step, if its work is worth two meetings. If it is not, one of
them does the pass: to wake another one for the products outside of the loop, and to hand over to it
what the loop has left in the nearest cache, takes as long as it would save.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..steps import Steps

# Work below which another thread costs more than it brings: about 30 µs of it.
THREAD_WORK = 1_000_000

# Threads share the units of a step where each would have fewer rows of the batch than this, and as
# many of them as have so many multiplications each. Two threads that meet, and read what the other
# has written, take some 0.3 µs.
FEW_ROWS = 3
SHARED_WORK = 25_000


class Sharing(NamedTuple):
    """How a pass is shared out.

    Attributes:
        threads: how many come to it.
        cuts: (parts + 1,) the rows of the batch are cut here.
        shares: how many threads share the units of each step; 1 if they take rows.
    """

    threads: int
    cuts: npt.NDArray[np.int64]
    shares: int

    @property
    def parts(self) -> int:
        """Parts of the rows."""
        return len(self.cuts) - 1


def share_out(steps: Steps, work_of_a_row: int, shareable: bool, threads: int) -> Sharing:
    """Share a pass out.

    Args:
        steps: the rows of each step.
        work_of_a_row: about how many multiplications one step of one row takes.
        shareable: whether threads can share the units of a step.
        threads: how many there are for it.
    """
    if shareable and steps.batch < FEW_ROWS * threads:
        shares = min(threads, steps.batch * work_of_a_row // max(1, SHARED_WORK))
        if shares > 1:
            return Sharing(shares, steps.cut_rows(1), shares)
    threads = max(1, min(threads, steps.batch))
    return Sharing(threads, steps.cut_rows(threads), 1)


def worth(rows: int, work_of_a_row: int, threads: int) -> int:
    """How many of some threads so many rows of all steps are worth."""
    return min(threads, 1 + rows * work_of_a_row // THREAD_WORK)
