"""Whole passes by one call, as a backend's `run`: what the layers do with tensors, on arrays."""

import threading
import time

import numpy as np

from unrolled.backends.cpu import kernel_for
from unrolled.backends.cpu.sharing import Sharing, share_out
from unrolled.backends.cpu.tables import FIRST, Extent, Table
from unrolled.backends.steps import Result


def run(
    program,
    sizes,
    inputs,
    states,
    parameters,
    steps,
    reverse=False,
    *,
    wanted=None,
    zeros_given=False,
    threads=1,
    work=1_000_000,
    pipelined=False,
    kernel=None,
    run_whole=None,
):
    """As `unrolled.backends.reference.run`; `wanted` names outputs and families.

    With `zeros_given` the function is given no states, which means zeros. `work` is how much a step
    of a row is taken to be: a little, and threads do not share its units. With `pipelined` one
    thread has the loop, and another one what stands outside. The `kernel` is the
    program's own by default, and `run_whole(kernel, table, extent)` may do the pass in a way of its
    own.
    """
    dtype = inputs[0].dtype
    kernel = kernel_for(program, dtype) if kernel is None else kernel
    text = kernel.whole
    sharing = share_out(steps, work, text.layout.shareable, threads)
    if pipelined:
        sharing = Sharing(2, steps.cut_rows(1), 1, pipelined=True)
    extent = Extent(sizes, steps, sharing, dtype)
    table = Table(text, extent, reverse)
    given = dict(zip(text.layout.inputs, inputs, strict=True))
    given |= dict(zip(text.given.values(), states, strict=True))
    given |= {array: parameters[family] for family, array in text.families.items()}
    given = {name: np.ascontiguousarray(array) for name, array in given.items()}
    made = {}
    for name in text.pointers:
        if name not in given:
            shape = text.shape(name, extent)
            made[name] = np.full(shape, np.nan, dtype)
    unwanted = []
    if wanted is not None:
        unwanted = [text.totals[family] for family in text.totals if family not in wanted]
        if not wanted.intersection(*program.outputs) and not text.needs_outputs:
            unwanted += text.layout.outputs
    if zeros_given:
        unwanted += text.given.values()
    arrays = {**given, **made}
    for place, name in enumerate(text.pointers, FIRST):
        table.numbers[place] = 0 if name in unwanted else arrays[name].ctypes.data
    if run_whole is not None:
        run_whole(kernel, table, extent)
    else:
        kernel.run_whole([table], threads)
    return Result(
        tuple(made[name] for name in text.layout.outputs),
        tuple(made[name] for name in text.layout.states.values()),
        {
            family: made[array].reshape(parameters[family].shape)
            for family, array in text.totals.items()
            if array not in unwanted
        },
    )


def run_by_threads(kernel, table, delays):
    """Do a pass by threads that come after so many seconds each."""

    def come(delay):
        time.sleep(delay)
        kernel.call_whole(table.address)

    table.begin()
    threads = [threading.Thread(target=come, args=(delay,)) for delay in delays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
