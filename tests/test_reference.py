"""Laws of the reference: what must hold for any recurrence, whatever its equations."""

from dataclasses import replace

import numpy as np
import pytest
from own_cells import OWN_CELLS
from passes import Case, assert_close

from unrolled import cells
from unrolled.backends import reference
from unrolled.backends.steps import Steps

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}
every_cell = pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
SHORT_ROWS = Steps(np.array([4, 3, 3, 1, 1]), 5)


def run(case, steps, x, states, reverse=False):
    return reference.run(
        case.cell.forward, case.sizes, [x], states, case.parameters, steps, reverse
    )


def rows_of(steps, row):
    """Where the steps of one row lie."""
    return [int(steps.offset[t]) + row for t in range(int(steps.lengths[row]))]


def test_steps_know_offsets_rows_and_lengths():
    assert SHORT_ROWS.offset.tolist() == [0, 4, 7, 10, 11]
    assert (SHORT_ROWS.rows, SHORT_ROWS.length) == (12, 5)
    assert SHORT_ROWS.lengths.tolist() == [5, 3, 3, 1, 0]


@every_cell
@pytest.mark.parametrize("reverse", [False, True], ids=["onwards", "backwards"])
def test_a_row_of_a_ragged_batch_is_the_row_alone(cell, reverse):
    case = Case.draw(cell, SHORT_ROWS, 4, 4)
    together = run(case, SHORT_ROWS, case.x, case.states, reverse)
    for row in range(5):
        here = rows_of(SHORT_ROWS, row)
        states = [state[row : row + 1] for state in case.states]
        alone = run(case, Steps.dense(len(here), 1), case.x[here], states, reverse)
        np.testing.assert_allclose(
            together.outputs[0][here], alone.outputs[0], rtol=1e-13, atol=1e-15
        )
        for one, other in zip(together.states, alone.states, strict=True):
            np.testing.assert_allclose(one[row : row + 1], other, rtol=1e-13, atol=1e-15)


@every_cell
def test_reading_backwards_is_reading_the_reversed_sequence(cell):
    case = Case.draw(cell, Steps.dense(6, 3), 4, 4)

    def turned(array):
        return array.reshape(6, 3, -1)[::-1].reshape(array.shape)

    backwards = case.both_passes(reference.run, reverse=True)
    onwards = replace(case, x=turned(case.x), dy=turned(case.dy)).both_passes(reference.run)
    for name in ("y", "dx"):
        onwards[name] = turned(onwards[name])
    for name, array in onwards.items():
        np.testing.assert_array_equal(backwards[name], array, err_msg=name)
    assert (case.both_passes(reference.run)["y"] != backwards["y"]).any()


@every_cell
def test_permuting_the_batch_permutes_the_result(cell):
    case = Case.draw(cell, Steps.dense(5, 4), 4, 4)
    order = [2, 0, 3, 1]

    def moved(array):
        return array.reshape(5, 4, -1)[:, order].reshape(array.shape)

    expected = case.both_passes(reference.run)
    for name, array in expected.items():
        if name in ("y", "dx"):
            expected[name] = moved(array)
        elif name.startswith("last") or name.endswith("_0"):
            expected[name] = array[order]
    found = replace(
        case,
        x=moved(case.x),
        dy=moved(case.dy),
        states=[state[order] for state in case.states],
        dstates=[gradient[order] for gradient in case.dstates],
    ).both_passes(reference.run)
    assert_close(found, expected, 1e-13)


@pytest.mark.parametrize(
    "cell", [c for c in ALL_CELLS.values() if c.name != "clock"], ids=lambda cell: cell.name
)
@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_sequence_in_two_parts_is_the_sequence(cell, k):  # the clock starts anew with each part
    """Values are carried over the join onwards, and gradients backwards."""
    B, whole = 3, Case.draw(cell, Steps.dense(7, 3), 4, 4)
    expected = whole.both_passes(reference.run)
    names = cell.states

    def part(steps, rows, states, dstates):
        return replace(
            whole,
            steps=Steps.dense(steps, B),
            x=whole.x[rows],
            dy=whole.dy[rows],
            states=states,
            dstates=dstates,
        ).both_passes(reference.run)

    here, there = slice(0, k * B), slice(k * B, None)
    joint = [part(k, here, whole.states, whole.dstates)[f"last {name}"] for name in names]
    second = part(7 - k, there, joint, whole.dstates)
    first = part(k, here, whole.states, [second[f"d{name}_0"] for name in names])
    found = {
        **{f"d{family}": first[f"d{family}"] + second[f"d{family}"] for family in whole.parameters},
        **{name: np.concatenate([first[name], second[name]]) for name in ("y", "dx")},
        **{f"last {name}": second[f"last {name}"] for name in names},
        **{f"d{name}_0": first[f"d{name}_0"] for name in names},
    }
    assert_close(found, expected, 1e-13)


@every_cell
def test_single_precision_stays_single(cell):
    case = Case.draw(cell, Steps.dense(3, 2), 4, 4)
    for name, array in case.both_passes(reference.run, "float32").items():
        assert array.dtype == np.float32, name


def test_the_number_of_the_step_counts_what_a_row_has_read():
    cell = OWN_CELLS["clock"]
    case = Case.draw(cell, SHORT_ROWS, 2, 3)
    for reverse in (False, True):
        counted = reference.run(
            cell.program.with_outputs(("phase",)),
            case.sizes,
            [case.x],
            case.states,
            case.parameters,
            SHORT_ROWS,
            reverse,
        ).outputs[0]
        for row in range(4):
            steps = np.arange(1, SHORT_ROWS.lengths[row] + 1)
            found = counted[rows_of(SHORT_ROWS, row), 0] / cell.constants["rate"]
            np.testing.assert_allclose(found, steps[::-1] if reverse else steps)
