"""Whole passes by one call, as a backend's `run`: what the layers do with tensors, on arrays."""

import numpy as np

from unrolled.backends.cpu import kernel_for
from unrolled.backends.cpu.tables import Table
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
):
    """As `unrolled.backends.reference.run`; `wanted` names outputs and families.

    With `zeros_given` the function is given no states, which means zeros.
    """
    dtype = inputs[0].dtype
    kernel = kernel_for(program, dtype)
    text = kernel.whole
    length, batch = steps.length, steps.batch
    table = Table(text, dtype, sizes, length, batch, reverse)
    given = dict(zip(text.layout.inputs, inputs, strict=True))
    given |= dict(zip(text.given.values(), states, strict=True))
    given |= {array: parameters[family] for family, array in text.families.items()}
    given = {name: np.ascontiguousarray(array) for name, array in given.items()}
    made = {}
    for name in text.pointers:
        if name not in given:
            shape = text.shape(name, sizes, length, batch, dtype)
            made[name] = np.full(shape, np.nan, dtype)
    unwanted = []
    if wanted is not None:
        unwanted = [text.totals[family] for family in text.totals if family not in wanted]
        if not wanted.intersection(*program.outputs) and not text.needs_after:
            unwanted += text.layout.outputs
    if zeros_given:
        unwanted += text.given.values()
    arrays = {**given, **made}
    for place, name in enumerate(text.pointers):
        table.numbers[place] = 0 if name in unwanted else arrays[name].ctypes.data
    kernel.run_whole(table.address)
    return Result(
        tuple(made[name] for name in text.layout.outputs),
        tuple(made[name] for name in text.layout.states.values()),
        {
            family: made[array].reshape(parameters[family].shape)
            for family, array in text.totals.items()
            if array not in unwanted
        },
    )
