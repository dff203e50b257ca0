"""The oracles by hand are themselves checked by central differences."""

import numpy as np
import pytest
from oracles import ORACLES, both_passes

from unrolled import cells


@pytest.mark.parametrize("name", ORACLES)
def test_gradients_are_those_of_central_differences(name):
    rng = np.random.default_rng(0)
    cell = getattr(cells, name)
    T, B, I, H = 4, 2, 3, 5  # noqa: E741
    p = cell.init(I, H, rng)
    x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    states = [rng.standard_normal((B, H)) for _ in cell.states]
    dstates = [rng.standard_normal((B, H)) for _ in cell.states]

    def loss():
        y, last, *_ = both_passes(name, x, states, p, dy, dstates)
        return (y * dy).sum() + sum((a * b).sum() for a, b in zip(last, dstates, strict=True))

    _, _, dx, dinitial, dp = both_passes(name, x, states, p, dy, dstates)
    pairs = [(x, dx), *zip(states, dinitial, strict=True), *((p[k], dp[k]) for k in p)]
    for array, gradient in pairs:
        for place in {tuple(rng.integers(0, n) for n in array.shape) for _ in range(8)}:
            value, step = array[place], 1e-5
            array[place] = value + step
            above = loss()
            array[place] = value - step
            below = loss()
            array[place] = value
            assert gradient[place] == pytest.approx(
                (above - below) / (2 * step), rel=1e-7, abs=1e-8
            )
