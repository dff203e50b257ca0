"""The CPU backend: a schedule written as Numba functions, in a file of its own, and run."""

from collections.abc import Mapping, Sequence

from ...program import Program
from ..steps import Array, Result, Steps
from .kernel import Kernel, kernel_for
from .plan import Pass

__all__ = ["Kernel", "Pass", "kernel_for", "run"]


def run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Sequence[Array],
    states: Sequence[Array],
    parameters: Mapping[str, Array],
    steps: Steps,
    reverse: bool = False,
    *,
    threads: int = 1,
    wanted: frozenset[str] | None = None,
) -> Result:
    """Run a program over a sequence, as `unrolled.backends.reference.run` does, but fast.

    Args:
        program: a forward or an adjoint program.
        sizes: letter → number.
        inputs: an array for each group of inputs, float32 or float64; all arrays have one dtype.
        states: an array (B, size) for each carried pair.
        parameters: family → stacked blocks.
        steps: the rows of each step.
        reverse: whether the layer reads the sequence from its end.
        threads: over how many threads the pass is spread.
        wanted: names of outputs, and of families whose totals are wanted; all if None.
    """
    kernel = kernel_for(program, inputs[0].dtype)
    return kernel.run(
        sizes,
        inputs,
        states,
        parameters,
        steps,
        reverse,
        threads=threads,
        wanted=wanted,
    )
