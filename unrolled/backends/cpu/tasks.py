"""The tasks of a pass, and the chunks of steps in which they are done.

What stands before the loop, the loop, and what comes after it are each a *task*, and a pass goes
through all of them chunk by chunk of steps. So what one task leaves for the next is still in a near
cache, and the memory that it lies in serves the next chunk, too.

All threads do the tasks of a chunk together, and go on to the next chunk. Or two threads are a
*pipeline*: the loop of a single row cannot be shared out, as each step waits for the one before it.
But what stands before the loop can be done while the loop is not that far yet, and what stands
after it as soon as the loop has gone by. So the first thread goes through the loop, and a second
one makes ready what the next chunks need, and then does what comes after those that are done.
Nobody waits for a thread that may not come: one that has come takes a chunk, and does it. What
nobody has taken when the loop needs it, or when the loop has ended, the first thread does itself.

In both cases the chunks of a task are done in order, so sums have the same order each time.
"""

from typing import NamedTuple

from .atomics import add, exchange, held, read, wait_a_moment
from .inner import inner
from .slabs import BEFORE, LOOP
from .team import DONE, PIPELINED


class Chunks(NamedTuple):
    """How the steps are cut; even numbers, as two buffers of a state change places at each step.

    Attributes:
        first: steps of the first chunk.
        each: steps of each other one; the last one has what is left.
    """

    first: int
    each: int

    def count(self, length: int) -> int:
        """How many chunks so many steps have; one of no steps."""
        return 1 + -(-max(0, length - self.first) // self.each)


# Of a pipeline. With fewer steps, sums would be read and written more often; with more, more would
# be left to do when the loop has ended. The first chunk is small, so that nobody waits long.
PIPELINE = Chunks(8, 32)

# Rows of all steps of a chunk that all threads do together: few in a backward pass, which reads at
# once what it has written, and many where it adds to gradients too large for the second caches, and
# forward, where each chunk lays the weights of its products anew. Measured on a Zen 5 with 16 to
# 128 rows of the batch (LSTM, GRU; 128 to 512 units): training takes 0.90 to 0.98 of the time. On a
# Xeon, whose third cache is far, forward takes 0.92 to 1.0 of the time with as many rows as leave
# in half the second caches what the loop reads of them, if these are few or more (LSTM, GRU; 16
# rows of 128 and 256 units), and 1.04 with few where they do not stay (64 rows of 512).
FEW, MANY = 512, 2048


def even_chunks(length: int, rows: int, wanted: int) -> Chunks:
    """Chunks of as many steps each, in the mean of about so many rows.

    Args:
        length: how many steps there are.
        rows: of all steps.
        wanted: how many of them a chunk should have.
    """
    number = max(1, round(rows / wanted))
    each = 2 * max(1, -(-length // (2 * number)))
    return Chunks(each, each)


@inner
def next_task(table, thread, task, chunk, first, last, chunks):  # type: ignore[no-untyped-def]
    """The task that a thread does next, and its chunk; the task `last` if all is done.

    Args:
        table: the table.
        thread: which of the threads it is; the first of a pipeline goes through the loop.
        task: what it has just done; -1 at first.
        chunk: of which chunk.
        first: the first task that there is, `BEFORE` or `LOOP`.
        last: the first that there is not any more.
        chunks: how many there are.
    """
    if not held(table, PIPELINED):
        if task < 0:
            return first, 0
        if task + 1 < last:
            return task + 1, chunk
        return (first, chunk + 1) if chunk + 1 < chunks else (last, 0)
    if task >= 0:
        add(table, DONE + task, 1)
    moments = 0
    while True:
        task, done = _ready(table, thread, first, last, chunks)
        if task == last:
            return last, 0
        if task >= 0 and exchange(table, DONE + task, done, done + 1):
            return task, done // 2
        moments = wait_a_moment(moments)


@inner
def _ready(table, thread, first, last, chunks):  # type: ignore[no-untyped-def]
    """A task whose next chunk a thread can do now, and what its slot holds.

    The slot of a task holds twice the number of chunks that are done, and one more while somebody
    does the next one. The task is -1 if all are waiting for somebody, `last` if all is done.
    """
    end = 2 * chunks
    ahead = read(table, DONE + BEFORE) if first == BEFORE else end
    looped = read(table, DONE + LOOP)
    if thread == 0 and looped < end:
        if ahead // 2 > looped // 2:
            return LOOP, looped
        return (-1, ahead) if ahead % 2 else (BEFORE, ahead)
    if ahead < end and ahead % 2 == 0:
        return BEFORE, ahead
    # Of what comes after the loop, what has been left behind farthest.
    found, least = -1, looped // 2 * 2
    left = ahead < end
    for task in range(LOOP + 1, last):
        done = read(table, DONE + task)
        left = left or done < end
        if done % 2 == 0 and done < least:
            found, least = task, done
    return (found, least) if found >= 0 or left else (last, end)


@inner
def turns_of(chunk, first, each, length):  # type: ignore[no-untyped-def]
    """The first turn of the loop of a chunk, and the first that is not; see `Chunks`."""
    until = first + chunk * each
    return (until - each if chunk else 0), min(until, length)


@inner
def rows_of(step, stop, active, offset):  # type: ignore[no-untyped-def]
    """Where the rows of some steps begin and end, which lie one after the other."""
    if step == stop:
        return 0, 0
    return offset[step], offset[stop - 1] + active[stop - 1]
