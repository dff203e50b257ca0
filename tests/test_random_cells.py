"""Cells that no one thought of, against their own source run as a plain loop in float64."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from own_cells import OWN_CELLS
from passes import Case, assert_close
from random_cells import different_sizes, random_cells

from unrolled import cells
from unrolled.backends import reference
from unrolled.backends.blocks import split_blocks, stack_blocks
from unrolled.backends.steps import Steps
from unrolled.simplify import simplify

plain_loops = pytest.importorskip(
    "plain_loops", reason="the loops need torch", exc_type=ImportError
)

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}
every_cell = pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
any_cell = given(random_cells(), st.sampled_from(["dense", "ragged"]), st.booleans())
STEPS = {
    "dense": Steps.dense(4, 3),
    "ragged": Steps(np.array([3, 3, 2, 1]), 4),  # the fourth row has no step at all
}


def places(steps, row):
    """Where the steps of one row lie."""
    return [int(steps.offset[t]) + row for t in range(int(steps.lengths[row]))]


def by_plain_loops(case, reverse):
    cell, steps = case.cell, case.steps
    rows = [places(steps, row) for row in range(steps.batch)]
    y, last, dx, dinitial, dblocks = plain_loops.both_passes(
        "\n".join(cell.equations.source.lines),
        cell.constants,
        [case.x[here] for here in rows],
        case.states,
        split_blocks(cell.program, case.sizes, case.parameters),
        [case.dy[here] for here in rows],
        case.dstates,
        reverse,
    )
    found = {"y": np.zeros_like(case.dy), "dx": np.zeros_like(case.x)}
    for row, here in enumerate(rows):
        if here:
            found["y"][here], found["dx"][here] = y[row], dx[row]
    return {
        **found,
        **{f"last {name}": a for name, a in zip(cell.states, last, strict=True)},
        **{f"d{name}_0": a for name, a in zip(cell.states, dinitial, strict=True)},
        **{f"d{family}": a for family, a in stack_blocks(cell.program, dblocks).items()},
    }


def assert_both_passes_are_right(cell, steps, reverse, seed=0):
    case = Case.draw(cell, STEPS[steps], 2, different_sizes(cell), seed)
    expected = by_plain_loops(case, reverse)
    for recompute in ("cheap", "near", "all"):
        found = case.both_passes(reference.run, reverse=reverse, recompute=recompute)
        assert_close(found, {name: expected[name] for name in found}, 1e-10)


def assert_simplifying_changes_nothing(cell):
    case = Case.draw(cell, Steps.dense(4, 3), 2, different_sizes(cell))
    arguments = (case.sizes, [case.x], case.states, case.parameters, case.steps)
    before, after = (
        reference.run(program, *arguments) for program in (cell.program, simplify(cell.program))
    )
    for one, other in zip(
        (*before.outputs, *before.states), (*after.outputs, *after.states), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@every_cell
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("reverse", [False, True], ids=["onwards", "backwards"])
def test_known_cells_are_their_source_run_as_a_loop(cell, steps, reverse):
    assert_both_passes_are_right(cell, steps, reverse)


@settings(max_examples=30, deadline=None, derandomize=True)
@any_cell
def test_random_cells_are_their_source_run_as_a_loop(cell, steps, reverse):
    assert_both_passes_are_right(cell, steps, reverse)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_cells())
def test_simplifying_random_cells_changes_not_a_bit(cell):
    assert_simplifying_changes_nothing(cell)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@any_cell
def test_many_random_cells_are_their_source_run_as_a_loop(cell, steps, reverse):
    assert_both_passes_are_right(cell, steps, reverse)
    assert_simplifying_changes_nothing(cell)
