"""A pass by two threads: one goes through the loop, and one does the work before and behind it.

The loop of a single row cannot be shared out, as each step waits for the one before it. But what
stands before the loop can be done while the loop is not that far yet, and what stands after it as
soon as the loop has gone by. So the first thread goes through the loop, chunk by chunk of steps; a
second one makes ready what the next chunks need, and then does what comes after those that are
done. Each kind of work is a *task*, and the chunks of a task are done in order, whoever does them,
so sums have the same order each time.

Nobody waits for a thread that may not come: one that has come takes a chunk, and does it. What
nobody has taken when the loop needs it, or when the loop has ended, the first thread does itself.
"""

from numba import njit

from .atomics import add, exchange, read, wait_a_moment
from .layout import BEFORE, LOOP
from .team import CHUNKS, DONE

# Steps of a chunk. With fewer, sums would be read and written more often; with more, more would be
# left to do when the loop has ended. The first chunk is cut in two, so that nobody waits long for
# the first steps. Even numbers, as two buffers of a state change places at each step.
CHUNK = 32
FIRST_CHUNK = 8


@njit
def next_task(table, thread, task, first, last):  # type: ignore[no-untyped-def]
    """The task that a thread does next, and its chunk; the task `last` if all is done.

    Args:
        table: the table.
        thread: which of the threads it is; the first goes through the loop.
        task: what it has just done; -1 at first.
        first: the first task that there is, `BEFORE` or `LOOP`.
        last: the first that there is not any more.
    """
    if not table[CHUNKS]:  # all threads do all tasks, one after the other
        return max(task + 1, first), 0
    if task >= 0:
        add(table, DONE + task, 1)
    moments = 0
    while True:
        task, done = _ready(table, thread, first, last)
        if task == last:
            return last, 0
        if task >= 0 and exchange(table, DONE + task, done, done + 1):
            return task, done // 2
        moments = wait_a_moment(moments)


@njit
def _ready(table, thread, first, last):  # type: ignore[no-untyped-def]
    """A task whose next chunk a thread can do now, and what its slot holds.

    The slot of a task holds twice the number of chunks that are done, and one more while somebody
    does the next one. The task is -1 if all are waiting for somebody, `last` if all is done.
    """
    end = 2 * table[CHUNKS]
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


@njit
def turns_of(table, chunk, length):  # type: ignore[no-untyped-def]
    """The first turn of the loop of a chunk, and the first that is not; all if there are none."""
    if not table[CHUNKS]:
        return 0, length
    return _start_of(chunk), min(_start_of(chunk + 1), length)


@njit
def _start_of(chunk):  # type: ignore[no-untyped-def]
    return FIRST_CHUNK if chunk == 1 else max(chunk - 1, 0) * CHUNK


def chunks_of(length: int) -> int:
    """How many chunks so many steps have."""
    return 1 if length <= FIRST_CHUNK else 1 - -length // CHUNK


@njit
def rows_of(step, stop, active, offset):  # type: ignore[no-untyped-def]
    """Where the rows of some steps begin and end, which lie one after the other."""
    if step == stop:
        return 0, 0
    return offset[step], offset[stop - 1] + active[stop - 1]
