"""Products with weights where they lie, and passes that leave them there."""

import numpy as np
import pytest
import torch
import whole_passes
from numba import njit
from numba.core.errors import TypingError
from own_cells import OWN_CELLS
from passes import Case, assert_close

import unrolled.nn
from unrolled import cells, layer_norm
from unrolled.backends import reference
from unrolled.backends.cpu import dots as dots_module, kernel_for, whole
from unrolled.backends.cpu.shared import know
from unrolled.backends.cpu.sharing import share_out
from unrolled.backends.cpu.tables import FIRST, Extent, Table
from unrolled.backends.cpu.team import window
from unrolled.backends.steps import Steps

DTYPES = (np.float32, np.float64)
COUNTS = (0, 1, 3, 4, 5, 15, 16, 17, 33, 50)
ALL_CELLS = {**cells.catalogue(), **OWN_CELLS, "normalised": layer_norm(cells.lstm)}
QUICK = {"lstm", "gru_original", "gru"}
every_cell = pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, cell in ALL_CELLS.items()
    ],
)


@njit
def dots(weights, first, count, operand, row, rows, out, at, column):
    dots_module.dots(weights, first, count, operand, row, rows, out, at, column)


@njit
def dots_of_windows(weights, operand, out):
    """Of columns from the second to the last but one, so that rows are not next to each other."""
    rows, columns = operand.shape[0], weights.shape[0]
    units = operand.shape[1] - 2
    dots_module.dots(
        window(weights, 0, columns, 1, 1 + units), 0, columns,
        window(operand, 0, rows, 1, 1 + units), 0, rows,
        window(out, 0, rows, 1, 1 + columns), 0, 0,
    )  # fmt: skip


@njit
def dots_of_groups(operand, weights, width, out, step):
    """All groups of three blocks of 37 units, into the second row."""
    dots_module.dots_of_groups(operand, 0, weights, (0, 3), width, 37, 3, out, 1, step)


def tolerance(dtype, units):
    return (1e-6 if dtype == np.float32 else 1e-14) * np.sqrt(max(units, 1)) * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [*range(14), 25])
def test_every_shape(rows, dtype):
    """Some rows of each in the midst of others, which must stay as they are."""
    know(np.dtype(dtype))
    rng = np.random.default_rng(rows)
    for units in (0, 1, 7, 16, 33, 70):
        operand = rng.standard_normal((rows + 3, units)).astype(dtype)
        for count in COUNTS:
            weights = rng.standard_normal((count + 3, units)).astype(dtype)
            before = rng.standard_normal((rows + 4, count + 5)).astype(dtype)
            expected = before.astype(np.float64)
            exact = operand.astype(np.float64) @ weights.astype(np.float64).T
            expected[3 : 3 + rows, 4 : 4 + count] = exact[1 : 1 + rows, 2 : 2 + count]
            out = before.copy()
            dots(weights, 2, count, operand, 1, rows, out, 3, 4)
            np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance(dtype, units))
            out[3 : 3 + rows, 4 : 4 + count] = before[3 : 3 + rows, 4 : 4 + count]
            np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_a_result_depend_on_nothing_beside_it(dtype):
    know(np.dtype(dtype))
    rng = np.random.default_rng(0)
    weights, operand = (rng.standard_normal((n, 83)).astype(dtype) for n in (45, 13))
    together = np.empty((13, 45), dtype)
    dots(weights, 0, 45, operand, 0, 13, together, 0, 0)
    for first, count, row, rows in ((0, 45, 4, 1), (7, 20, 0, 13), (44, 1, 2, 5), (3, 4, 12, 1)):
        out = np.empty((13, 45), dtype)
        dots(weights, first, count, operand, row, rows, out, row, first)
        part = slice(row, row + rows), slice(first, first + count)
        np.testing.assert_array_equal(out[part], together[part])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_be_far_apart(dtype):
    know(np.dtype(dtype))
    rng = np.random.default_rng(0)
    for rows in (1, 6):
        weights, operand = (rng.standard_normal((n, 42)).astype(dtype) for n in (37, rows))
        out = np.zeros((rows, 40), dtype)
        dots_of_windows(weights, operand, out)
        expected = np.zeros((rows, 40))
        expected[:, 1:38] = operand[:, 1:-1].astype(np.float64) @ weights[:, 1:-1].T
        np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance(dtype, 40))


@pytest.mark.parametrize("step", [0, 1])
def test_groups_write_nothing_beyond_their_blocks(step):
    know(np.dtype(np.float64))
    rng = np.random.default_rng(0)
    weights, operand = rng.standard_normal((3 * 37, 20)), rng.standard_normal((1, 20))
    out = np.zeros((3, 3 * 37))
    dots_of_groups(operand, weights, 16, out, step)
    np.testing.assert_allclose(out[1:2], operand @ weights.T, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(out[[0, 2]], 0)


def test_matrices_of_two_dtypes_are_refused():
    single, double = np.zeros((2, 3), np.float32), np.zeros((2, 3))
    with pytest.raises(TypingError, match="dots takes matrices of one dtype"):
        dots(single, 0, 2, double, 0, 2, double, 0, 0)


# a single row


@pytest.fixture
def nothing_packed(monkeypatch):
    """Weights of any size stay where they lie."""
    monkeypatch.setattr(whole, "LEAST_UNITS", 1)
    monkeypatch.setattr(whole, "LEAST_BYTES", 1)


def lying(program, table):
    """Which matrices of the loop are said to stay where they lie."""
    text = kernel_for(program, np.dtype("float64")).whole
    return [table.numbers[FIRST + text.table.index(name)] for name in text.lying.values()]


@pytest.mark.usefixtures("nothing_packed", "threads_for_any_work")
@every_cell
def test_both_passes_equal_the_reference(cell):
    seen = set()

    def run(program, *given, **options):
        def run_whole(kernel, table, extent):
            seen.update(lying(program, table))
            kernel.run_whole([table], options["threads"])

        return whole_passes.run(program, *given, run_whole=run_whole, **options)

    for steps, size in ((Steps.dense(7, 1), 37), (Steps.dense(3, 1), 150)):
        case = Case.draw(cell, steps, size if cell.name == "output" else 5, size)
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            alone, together = (
                case.both_passes(run, "float64", reverse=reverse, threads=n) for n in (1, 3)
            )
            assert_close(alone, expected, 1e-11)
            for name, found in alone.items():
                np.testing.assert_array_equal(found, together[name])
    may_lie = kernel_for(cell.forward, np.dtype("float64")).whole.lying
    assert seen == ({1} if may_lie else set())


@pytest.mark.parametrize("name", ["lstm", "gru", "gru_original", "peephole_lstm"])
def test_matrices_of_the_catalogue_may_stay_where_they_lie(name):
    forward = cells.catalogue()[name].forward
    for program in (forward.with_outputs(("h",)), forward):
        text = kernel_for(program, np.dtype("float32")).whole
        assert text.lying.keys() == text.packed.keys()


@pytest.fixture
def large_ones_lie(monkeypatch):
    """Weights from 256 KB on stay where they lie, whatever the processor."""
    monkeypatch.setattr(whole, "LEAST_BYTES", 1 << 18)


@pytest.mark.usefixtures("large_ones_lie")
@pytest.mark.parametrize(
    ("name", "batch", "size", "expected"),
    [
        ("lstm", 1, 512, True), ("lstm", 2, 512, False), ("lstm", 1, 127, False),
        ("simple", 1, 256, True), ("simple", 1, 200, False),
    ],
)  # fmt: skip
def test_large_weights_of_a_single_row_have_no_second_copy(name, batch, size, expected):
    program = cells.catalogue()[name].forward.with_outputs(("h",))
    text = kernel_for(program, np.dtype("float32")).whole
    sharing = share_out(Steps.dense(25, batch), 1, True, 1)
    extent = Extent({"I": 8, "H": size}, Steps.dense(25, batch), sharing, np.dtype("float32"))
    table = Table(text, extent)
    assert lying(program, table) == [expected]
    weights = 4 * (4 if name == "lstm" else 1) * size**2
    assert (table.nbytes < weights) == expected
    assert (table.nbytes > 2 * weights) != expected  # packed, and what they were packed from


# rows of all steps


@pytest.mark.parametrize(("length", "few"), [(20, True), (30, False)])
def test_few_rows_are_those_of_all_steps(length, few):
    """However they are cut: by a pipeline in chunks of eight and more steps, or not at all."""
    case = Case.draw(cells.lstm, Steps.dense(length, 1), 210, 40)
    assert dots_module.few.py_func(length, 210) == few
    alone = case.both_passes(whole_passes.run, "float64")
    pipeline = case.both_passes(whole_passes.run, "float64", threads=2, pipelined=True)
    assert_close(alone, case.both_passes(reference.run), 1e-11)
    for name in ("y", "last h", "last c"):
        np.testing.assert_array_equal(alone[name], pipeline[name])


def test_many_rows_are_never_few():
    most = dots_module.FEW_ROWS
    assert dots_module.few.py_func(most, 10 * most)
    assert not dots_module.few.py_func(most, 10 * most - 1)
    assert not dots_module.few.py_func(most + 1, 4000)


# layers


@pytest.mark.usefixtures("large_ones_lie")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layers_equal_torch_and_a_weight_that_changes_counts_at_once(kind):
    torch.manual_seed(0)
    sizes = {"input_size": 300, "hidden_size": 260, "dtype": torch.float64}
    ours, theirs = getattr(unrolled.nn, kind)(**sizes), getattr(torch.nn, kind)(**sizes)
    for length in (1, 12, 40):
        x = torch.randn(length, 1, 300, dtype=torch.float64, requires_grad=True)
        for write in (torch.Tensor.neg_, lambda weight: weight[-1].mul_(1.5)):
            for weight in ours.parameters():
                write(weight.data)  # which no version counter sees
            theirs.load_state_dict(ours.state_dict())
            with torch.no_grad():
                torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-12)
            gradients = [
                torch.autograd.grad(layer(x)[0].square().sum(), [x, *layer.parameters()])
                for layer in (ours, theirs)
            ]
            torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
