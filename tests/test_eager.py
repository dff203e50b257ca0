"""The eager backend gives what the reference gives, and torch can differentiate it."""

import numpy as np
import pytest
import torch

from unrolled import Cell, cells
from unrolled.backends import eager, reference
from unrolled.backends.blocks import stack_blocks
from unrolled.backends.steps import Steps
from unrolled.derivative import differentiate, kept_values
from unrolled.language.operations import OPERATIONS, PRODUCTS

EVERYTHING = Cell.parse(
    """
def everything(x, h_prev, s_prev, *, W, U, V, P, b, tau=0.5):
    a = W.a @ x + U.a @ h_prev + b.a
    gap = where(a > 0.2, exp(-abs(a)), softplus(a) + tau) / (1 + sqrt(1 + a * a))
    s = maximum(minimum(gap, P.s * s_prev), -1) + log(2 + tanh(V.s @ (gap * s_prev))) / t
    h = V.h @ relu(s) + 0.1 * sigmoid(s) ** 2 - where(s_prev <= s, 0.1, -s)
    return h, s
"""
)
CELLS = {**cells.catalogue(), "everything": EVERYTHING}
STEPS = {
    "dense": Steps.dense(5, 3),
    "ragged": Steps(np.array([4, 3, 3, 1]), 5),
    "empty": Steps.dense(0, 2),
}


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def assert_equal(found, expected) -> None:
    for group in ("outputs", "states"):
        pairs = zip(getattr(found, group), getattr(expected, group), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-11, atol=1e-12)
    for family, total in found.totals.items():
        np.testing.assert_allclose(total.numpy(), expected.totals[family], rtol=1e-11, atol=1e-12)


def arrays(cell: Cell, steps: Steps, seed: int = 0):
    rng = np.random.default_rng(seed)
    sizes = cell.bind(4, 6)
    families = stack_blocks(cell.program, cell.init(4, 6, rng))
    x = rng.standard_normal((steps.rows, 4))
    states = [rng.standard_normal((steps.batch, 6)) for _ in cell.states]
    return rng, sizes, families, x, states


def test_the_table_has_one_line_for_each_operation() -> None:
    assert set(eager.OPERATIONS) == set(OPERATIONS) - PRODUCTS


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_eager_equals_reference(cell: Cell, steps: Steps, reverse: bool) -> None:
    rng, sizes, families, x, states = arrays(cell, steps)
    adjoint = differentiate(cell.forward)
    forward = cell.forward.with_outputs((cell.states[0],), kept_values(adjoint))
    ours = {family: tensor(array) for family, array in families.items()}
    expected = reference.run(forward, sizes, [x], states, families, steps, reverse)
    found = eager.run(
        forward, sizes, [tensor(x)], [tensor(s) for s in states], ours, steps, reverse
    )
    assert_equal(found, expected)

    kept, dy = expected.outputs[1], rng.standard_normal((steps.rows, 6))
    gradients = [x, kept, dy]
    expected = reference.run(adjoint, sizes, gradients, states, families, steps, reverse)
    found = eager.run(
        adjoint,
        sizes,
        [tensor(array) for array in gradients],
        [tensor(s) for s in states],
        ours,
        steps,
        reverse,
    )
    assert set(found.totals) == set(families)
    assert_equal(found, expected)


def scalar_run(cell: Cell, steps: Steps, reverse: bool):
    """A function of tensors (x, states, families) that gives outputs and last states."""
    _, sizes, families, x, states = arrays(cell, steps)
    names = list(families)
    given = [x, *states, *families.values()]

    def run(x, *rest):
        count = len(cell.states)
        result = eager.run(
            cell.forward,
            sizes,
            [x],
            rest[:count],
            dict(zip(names, rest[count:], strict=True)),
            steps,
            reverse,
        )
        return (*result.outputs, *result.states)

    return run, [tensor(array).requires_grad_() for array in given]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru_original", "everything"])
def test_derivatives_of_every_kind(name: str, reverse: bool) -> None:
    run, given = scalar_run(CELLS[name], STEPS["ragged"], reverse)
    assert torch.autograd.gradcheck(
        run, given, check_forward_ad=True, check_batched_grad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(run, given, fast_mode=True)


def test_its_gradient_is_that_of_the_adjoint_program() -> None:
    cell, steps = EVERYTHING, STEPS["dense"]
    run, given = scalar_run(cell, steps, reverse=False)
    outputs = run(*given)
    weights = [torch.randn(y.shape, dtype=y.dtype) for y in outputs]
    found = torch.autograd.grad(outputs, given, weights)
    _, sizes, families, x, states = arrays(cell, steps)
    adjoint = differentiate(cell.forward)
    forward = cell.forward.with_outputs(kept_values(adjoint))
    kept = reference.run(forward, sizes, [x], states, families, steps).outputs[0]
    dy, *dlast = (weight.numpy() for weight in weights)
    expected = reference.run(adjoint, sizes, [x, kept, dy], dlast, families, steps)
    assert_equal(
        reference.Result(found[:1], found[1:3], dict(zip(families, found[3:], strict=True))),
        expected,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype(dtype: torch.dtype) -> None:
    run, given = scalar_run(EVERYTHING, STEPS["ragged"], reverse=True)
    exact = run(*given)
    rough = run(*(tensor.to(dtype) for tensor in given))
    for found, expected in zip(rough, exact, strict=True):
        assert found.dtype == dtype
        error = (found.double() - expected).abs().max()
        assert error < 60 * torch.finfo(dtype).eps


def test_vmap_over_parameters() -> None:
    run, given = scalar_run(cells.lstm, STEPS["dense"], reverse=False)
    given = [tensor.detach() for tensor in given]
    several = [torch.stack([tensor, 0.5 * tensor]) for tensor in given[3:]]
    together = torch.vmap(lambda *families: run(*given[:3], *families))(*several)
    for number in range(2):
        alone = run(*given[:3], *(family[number] for family in several))
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[number], expected)
