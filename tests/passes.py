"""A forward and a backward pass of a cell on drawn numbers, by any backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unrolled import Cell
from unrolled.backends.blocks import stack_blocks
from unrolled.backends.steps import Result, Steps
from unrolled.derivative import Recompute, differentiate, kept_values

Run = Callable[..., Result]


@dataclass
class Case:
    """A cell, its sizes, and every number that its two passes need."""

    cell: Cell
    sizes: dict[str, int]
    steps: Steps
    x: np.ndarray
    states: list[np.ndarray]
    parameters: dict[str, np.ndarray]
    dy: np.ndarray
    dstates: list[np.ndarray]

    @classmethod
    def draw(
        cls,
        cell: Cell,
        steps: Steps,
        input_size: int,
        hidden_size: int | Mapping[str, int],
        seed: int = 0,
    ) -> "Case":
        rng = np.random.default_rng(seed)
        sizes = cell.bind(input_size, hidden_size)
        widths = [sizes[cell.sizes.values[state]] for state in cell.states]
        return cls(
            cell=cell,
            sizes=sizes,
            steps=steps,
            x=rng.standard_normal((steps.rows, input_size)),
            states=[rng.standard_normal((steps.batch, width)) for width in widths],
            parameters=stack_blocks(cell.program, cell.init(input_size, hidden_size, rng)),
            dy=rng.standard_normal((steps.rows, widths[0])),
            dstates=[rng.standard_normal((steps.batch, width)) for width in widths],
        )

    def both_passes(
        self,
        run: Run,
        dtype: str = "float64",
        reverse: bool = False,
        recompute: Recompute = "cheap",
        **options: Any,
    ) -> dict[str, np.ndarray]:
        """The outputs, the last states, and the gradient of everything that has one."""
        adjoint = differentiate(self.cell.forward, recompute=recompute)
        forward = self.cell.forward.with_outputs((self.cell.states[0],), kept_values(adjoint))
        x, dy = self.x.astype(dtype), self.dy.astype(dtype)
        states = [state.astype(dtype) for state in self.states]
        dstates = [gradient.astype(dtype) for gradient in self.dstates]
        parameters = {name: array.astype(dtype) for name, array in self.parameters.items()}
        there = run(forward, self.sizes, [x], states, parameters, self.steps, reverse, **options)
        y, kept = there.outputs
        back = run(
            adjoint, self.sizes, [x, kept, dy], dstates, parameters, self.steps, reverse, **options
        )
        names = self.cell.states
        return {
            "y": y,
            **{f"last {name}": a for name, a in zip(names, there.states, strict=True)},
            "dx": back.outputs[0],
            **{f"d{name}_0": a for name, a in zip(names, back.states, strict=True)},
            **{f"d{family}": gradient for family, gradient in back.totals.items()},
        }


def assert_close(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float
) -> None:
    """Every array agrees, relative to its largest number."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert np.isfinite(found[name]).all(), f"{name} is not finite"
        scale = max(1e-3, float(np.abs(array).max(initial=0)))
        worst = float(np.abs(found[name] - array).max(initial=0)) / scale
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, relative to its largest number"
