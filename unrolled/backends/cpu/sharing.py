"""How the work of a pass is shared out to threads.

Threads take rows of the batch, which know nothing of each other. Where there are too few rows for
that, they share the units of each step, if its work is worth two meetings; so they do with some
more rows where a core's own cache does not hold all weights of the loop, since then each reads its
part of them only.
A step of a single row that is not worth it stays with one of them, and another one does at the same
time what stands before and behind the loop (`tasks`), if that is worth waking it. To wait for
the loop, and share out what stands outside of it then, is not: to wake a thread, and to hand over
to it what lies in the nearest cache of the other one, takes as long as it saves.
"""

import os
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...language.sizes import ONE
from ...schedule import Schedule
from ..steps import Steps
from .caches import cache_sizes
from .vectors import ZEN

# Work below which another thread costs more than it brings: about 30 µs of it.
THREAD_WORK = 1_000_000

# Threads share the units of a step where each would have fewer rows of the batch than this, and as
# many of them as have so many multiplications of each row. Two threads that meet, and read what the
# other has written, take some 0.3 µs; 0.1 on a Zen 5, but 0.5 while a neighbour is loud.
FEW_ROWS = 3
SHARED_WORK = 25_000

# In training, if a pipeline is what they would otherwise be: it has twice as much to do beside the
# loop as in inference. Measured (LSTM, GRU, simple RNN; 80 to 320 units): to share units takes 1.1
# to 1.27 of the time at 50 to 100 thousand multiplications a step, as long at 140 thousand, and 0.8
# at 300; in inference 0.8 to 1.0 at 50. On a Zen 5 it takes 0.88 to 0.92 at 55 to 130 thousand, on
# a Zen 3 0.87 (LSTM of 100 units) and 0.95 (128) at 80 to 130.
SHARED_WORK_IN_TRAINING = SHARED_WORK if ZEN else 70_000

# They share them too, up to so many rows each, where the weights of the loop do not fit the second
# cache. Measured at 2 MB of it and 20 or 64 rows (LSTM, GRU; 3 to 7 MB of weights): 0.84 to 0.96 of
# the time in inference, 0.91 to 1.0 in training; at 1 and 1.7 MB of weights 1.05 of it and more.
# Since panels serve some tiles (`GROUP_ROWS`), on a Xeon in training: 0.92 to 1.0 with 6 to 16 rows
# each, 1.03 to 1.07 with 32.
MANY_ROWS, MANY_ROWS_IN_TRAINING = 32, 16
SECOND_CACHE = cache_sizes()["L2"]

# A Zen's third cache is near, and with weights that it holds threads share up to so many rows each.
# On a Zen 5, 1 MB of second cache: 0.69 to 0.83 with two rows each, 0.95 to 1.1 with four, and with
# eight 1.0 in inference and 1.02 to 1.1 in training. On a Zen 3, 512 KB: 1.03 to 1.09 with eight,
# 0.97 to 0.98 with ten. More weights each thread would fetch from memory, all of them: on a Zen 3,
# with 12 to 16 MB and 16 or 32 rows, sharing takes 0.6 to 1.03 of the time (a GRU of 16 rows in
# inference 0.88 and 1.09 in two runs); with 9 and 10 MB it is 0.93 to 1.17.
NEAR_WEIGHTS = 10 << 20 if ZEN else 0
NEAR_ROWS = 5

# Work of all steps from which on a second thread does what stands outside of the loop. Measured
# with AVX-512 on two cores (LSTM, GRU, simple RNN; 16 to 128 units): from here on training takes
# 0.7 to 1.0 of the time, and at a third of this work up to 1.2.
PIPELINE_WORK = 4_000_000

# The pauses of the machine, 15 to 60 ns each, that the first thread waits for others: a quarter of
# what it would need alone, a pause being so many multiplications, within bounds. Alone it takes
# twice as long. A sleeping thread was there after 20 µs on a Zen 5, and after 100 to 300 on a
# virtual machine whose cores sleep, too. More threads than cores come in turns, and are not waited
# for longer than that takes at best: 16 on two cores take six times as long if all come.
WORK_OF_A_PAUSE = 10_000
LEAST_PATIENCE, MOST_PATIENCE = 1_000, 20_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Sharing(NamedTuple):
    """How a pass is shared out.

    Attributes:
        threads: how many come to it.
        cuts: (parts + 1,) the rows of the batch are cut here.
        shares: how many threads share the units of each step; 1 if they take rows.
        pipelined: whether one of two threads has the loop, and the other one the work outside.
        patience: how many pauses the first thread waits for others.
    """

    threads: int
    cuts: npt.NDArray[np.int64]
    shares: int
    pipelined: bool = False
    patience: int = LEAST_PATIENCE

    @property
    def parts(self) -> int:
        """Parts of the rows."""
        return len(self.cuts) - 1


def share_out(
    steps: Steps,
    work_of_a_row: int,
    shareable: bool,
    threads: int,
    work_outside: int = 0,
    itemsize: int = 4,
    trains: bool = False,
) -> Sharing:
    """Share a pass out.

    Args:
        steps: the rows of each step.
        work_of_a_row: about how many multiplications one step of one row takes; as many weights
            it reads.
        shareable: whether threads can share the units of a step.
        threads: how many there are for it.
        work_outside: see the function of that name.
        itemsize: bytes of a weight.
        trains: whether it is one of the two passes of training.
    """
    work = steps.rows * (work_of_a_row + work_outside)
    most = MOST_PATIENCE if threads <= CORES else LEAST_PATIENCE
    patience = min(max(LEAST_PATIENCE, work // WORK_OF_A_PAUSE), most)
    can_pipeline = steps.batch == 1 and threads > 1 and work_outside and work >= PIPELINE_WORK
    if shareable and steps.batch <= threads * _rows_at_most(itemsize * work_of_a_row, trains):
        each = SHARED_WORK_IN_TRAINING if trains and can_pipeline else SHARED_WORK
        shares = min(threads, work_of_a_row // max(1, each))
        if shares > 1:
            return Sharing(shares, steps.cut_rows(1), shares, patience=patience)
    # Both passes of a cell decide alike: each finds in a thread's caches what the other has left.
    if can_pipeline:
        return Sharing(2, steps.cut_rows(1), 1, pipelined=True)
    threads = max(1, min(threads, steps.batch))
    return Sharing(threads, steps.cut_rows(threads), 1, patience=patience)


def _rows_at_most(weights: int, trains: bool) -> int:
    """Up to how many rows each threads share the units, given the bytes of weights of the loop."""
    if weights <= SECOND_CACHE:
        return FEW_ROWS - 1
    if weights <= NEAR_WEIGHTS:
        return NEAR_ROWS
    return MANY_ROWS_IN_TRAINING if trains else MANY_ROWS


def work_outside(schedule: Schedule, sizes: Mapping[str, int]) -> int:
    """About how many multiplications one step of one row takes before and after the loop.

    Gradients of parameters are not among them.

    Args:
        schedule: of the program.
        sizes: letter → number.
    """
    numbers = {**sizes, ONE: 1}
    return sum(
        prod(numbers[letter] for letter in schedule.program.shapes[block])
        for stage in (*schedule.before, *schedule.after)
        for product in stage.products
        for block in product.blocks
    )


def worth(rows: int, work_of_a_row: int, threads: int) -> int:
    """How many of some threads so many rows of all steps are worth."""
    return min(threads, 1 + rows * work_of_a_row // THREAD_WORK)
