"""Laws of the reference: what must hold for any recurrence, whatever its equations."""

import numpy as np
import pytest
from own_cells import OWN_CELLS
from passes import Case

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
    steps = Steps.dense(6, 3)
    case = Case.draw(cell, steps, 4, 4)
    turned = case.x.reshape(6, 3, 4)[::-1].reshape(18, 4)
    backwards = run(case, steps, case.x, case.states, reverse=True)
    onwards = run(case, steps, turned, case.states)
    again = onwards.outputs[0].reshape(6, 3, 4)[::-1].reshape(18, 4)
    np.testing.assert_array_equal(backwards.outputs[0], again)


@every_cell
def test_permuting_the_batch_permutes_the_result(cell):
    steps = Steps.dense(5, 4)
    case = Case.draw(cell, steps, 4, 4)
    order = [2, 0, 3, 1]
    moved = case.x.reshape(5, 4, 4)[:, order].reshape(20, 4)
    result = run(case, steps, moved, [state[order] for state in case.states])
    expected = run(case, steps, case.x, case.states).outputs[0].reshape(5, 4, 4)[:, order]
    np.testing.assert_allclose(result.outputs[0].reshape(5, 4, 4), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "cell", [c for c in ALL_CELLS.values() if c.name != "clock"], ids=lambda cell: cell.name
)
def test_a_sequence_in_two_parts_is_the_sequence(cell):  # the clock starts anew with each part
    case = Case.draw(cell, Steps.dense(7, 3), 4, 4)
    whole = run(case, case.steps, case.x, case.states)
    first = run(case, Steps.dense(3, 3), case.x[:9], case.states)
    second = run(case, Steps.dense(4, 3), case.x[9:], first.states)
    parts = np.concatenate([first.outputs[0], second.outputs[0]])
    np.testing.assert_array_equal(parts, whole.outputs[0])
    for one, other in zip(second.states, whole.states, strict=True):
        np.testing.assert_array_equal(one, other)


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
