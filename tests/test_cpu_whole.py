"""A whole pass by one call against the reference, for every cell."""

import numpy as np
import plain_kernels
import pytest
import whole_passes
from own_cells import OWN_CELLS
from passes import Case, assert_close

from unrolled import Cell, cells, layer_norm
from unrolled.backends import cpu, reference
from unrolled.backends.cpu import kernel_for
from unrolled.backends.steps import Steps
from unrolled.derivative import differentiate

TOLERANCE = {"float64": 1e-11, "float32": 2e-5}
ALL_CELLS = {**cells.catalogue(), **OWN_CELLS, "normalised": layer_norm(cells.lstm)}
QUICK = {"lstm", "gru_original"}
IN_FLOAT32 = ("lstm", "gru")  # what calls the generated functions is the same for both dtypes


def sizes_for(cell, hidden_size):
    return (hidden_size if cell.name == "output" else 5), hidden_size


def every_cell(in_float32=IN_FLOAT32, others=pytest.mark.slow):
    """All cells; what is done with those that a quick run does not compile."""
    return pytest.mark.parametrize(
        ("cell", "dtype"),
        [
            pytest.param(
                cell,
                dtype,
                id=f"{name}-{dtype}",
                marks=() if (dtype == "float64" and name in QUICK) or (name, dtype) ==
                ("lstm", "float32") else others,
            )
            for name, cell in ALL_CELLS.items()
            for dtype in ("float64", *(["float32"] if name in in_float32 else []))
        ],
    )  # fmt: skip


@every_cell()
def test_both_passes_equal_the_reference(cell, dtype):
    for steps, hidden_size in (
        (Steps.dense(6, 3), 33),
        (Steps.dense(1, 1), 1),
        (Steps.dense(4, 13), 16),
    ):
        case = Case.draw(cell, steps, *sizes_for(cell, hidden_size))
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            found = case.both_passes(whole_passes.run, dtype, reverse=reverse)
            assert_close(found, expected, TOLERANCE[dtype])


RAGGED = Steps(np.array([8, 8, 6, 3, 3, 1, 1]), 9)  # the ninth row has no step at all


@pytest.mark.usefixtures("threads_for_any_work")
@every_cell(in_float32=())
def test_a_team_of_threads_does_ragged_passes(cell, dtype):
    for steps in (RAGGED, Steps(np.array([2, 2, 1, 1]), 2), Steps.dense(3, 13)):
        case = Case.draw(cell, steps, *sizes_for(cell, 37))
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            for threads in (1, 3):
                found = case.both_passes(cpu.run, dtype, reverse=reverse, threads=threads)
                assert_close(found, expected, TOLERANCE[dtype])


def test_a_sequence_without_steps_hands_the_states_on():
    case = Case.draw(cells.lstm, Steps.dense(0, 3), 4, 5)
    assert_close(case.both_passes(cpu.run), case.both_passes(reference.run), 0)


@every_cell(in_float32=(), others=pytest.mark.plain)
def test_recomputing_gives_the_same(cell, dtype):
    case = Case.draw(cell, Steps.dense(5, 4), *sizes_for(cell, 9))
    expected = case.both_passes(reference.run)
    found = case.both_passes(whole_passes.run, dtype, recompute=True)
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize(
    "run",
    [plain_kernels.run, pytest.param(whole_passes.run, marks=pytest.mark.slow)],
    ids=["plain", "compiled"],
)
def test_a_size_of_its_own_and_blocks_scattered_over_families(run):
    case = Case.draw(cells.projected_lstm, Steps.dense(5, 4), 7, {"h": 3, "c": 18})
    assert_close(case.both_passes(run), case.both_passes(reference.run), 1e-12)
    cell = Cell.parse(
        """def scattered(x, h_prev, *, U, V, W, b):
            a = tanh(U.a @ x + V.a @ h_prev + b.a)
            k = sigmoid(W.k @ x + U.k @ (a * h_prev) + b.a)
            h = k * a + (1 - k) * tanh(W.h @ h_prev + V.h @ x + U.h @ x + b.h)
            return h"""
    )
    case = Case.draw(cell, Steps.dense(5, 4), 9, 9)
    assert_close(case.both_passes(run), case.both_passes(reference.run), 1e-12)


@pytest.mark.parametrize("name", ["lstm", "deep_input"])
def test_what_is_not_wanted_is_not_written_and_changes_nothing(name):
    case = Case.draw(ALL_CELLS[name], Steps.dense(6, 3), 5, 8)
    adjoint = differentiate(case.cell.forward)
    everything = case.both_passes(whole_passes.run)
    families = set(case.parameters)
    for wanted in (set(), {"W"}, families - {"W"}, families, {"dx"}):

        def run(program, *arguments, wanted=wanted, **options):
            chosen = frozenset(wanted) if program == adjoint else None
            return whole_passes.run(program, *arguments, wanted=chosen, **options)

        found = case.both_passes(run)
        assert {f"d{family}" for family in families} & found.keys() == {
            f"d{family}" for family in families & wanted
        }
        if "dx" not in wanted:
            del found["dx"]
        assert_close(found, {name: everything[name] for name in found}, 0)


@pytest.mark.parametrize("wanted", [{"A"}, {"A", "a"}])
def test_gradients_may_need_what_is_computed_after_the_loop(wanted):
    """Where the gradient of the input is not wanted, in the ordinary kernel too."""
    case = Case.draw(OWN_CELLS["deep_input"], Steps.dense(6, 3), 5, 8)
    adjoint = differentiate(case.cell.forward)
    assert kernel_for(adjoint, np.dtype("float64")).whole.needs_outputs
    expected = case.both_passes(reference.run)

    def run(program, *arguments, **options):
        chosen = frozenset(wanted) if program == adjoint else None
        return cpu.run(program, *arguments, wanted=chosen, **options)

    found = case.both_passes(run)
    for family in wanted:
        assert_close({"gradient": found[f"d{family}"]}, {"gradient": expected[f"d{family}"]}, 1e-12)


def test_no_states_given_are_zeros():
    case = Case.draw(cells.lstm, Steps.dense(6, 3), 5, 8)
    case.states = [np.zeros_like(state) for state in case.states]
    expected = case.both_passes(reference.run)
    program = case.cell.forward.with_outputs(("h",))
    arguments = (case.sizes, [case.x], case.states, case.parameters, case.steps)
    found = whole_passes.run(program, *arguments, zeros_given=True)
    assert_close({"y": found.outputs[0]}, {"y": expected["y"]}, 1e-12)
    assert_close(
        {"h": found.states[0], "c": found.states[1]},
        {"h": expected["last h"], "c": expected["last c"]},
        1e-12,
    )


def test_the_kernel_says_what_it_does():
    text = kernel_for(cells.lstm.forward, np.dtype("float32")).text
    assert "def whole(address):" in text
    assert "product(window(x_steps" in text


@pytest.mark.parametrize("name", ["lstm", "gru", "peephole_lstm"])
def test_weights_stay_packed_in_inference_only_with_what_they_were_packed_from(name):
    forward = cells.catalogue()[name].forward
    whole = kernel_for(forward.with_outputs(("h",)), np.dtype("float64")).whole
    matrices = {array for array in whole.scratch if array.startswith(("packed_", "used_"))}
    assert whole.lasting == matrices
    assert len(matrices) == 2 * len(whole.packed) > 0
    for program in (forward.with_outputs(("h",), ("h",)), differentiate(forward)):
        assert not kernel_for(program, np.dtype("float64")).whole.lasting
