"""Kernels run as plain Python: every cell, any cell, and what compiled code would do in silence."""

import re

import numpy as np
import plain_kernels
import pytest
import torch
from drawn_layers import calls
from hypothesis import HealthCheck, given, settings, strategies as st
from own_cells import OWN_CELLS
from passes import Case, assert_close
from random_cells import different_sizes, random_cells

from unrolled import Cell, cells, layer_norm
from unrolled.backends import reference
from unrolled.backends.cpu import dots, kernel_for, sharing, vectors, whole
from unrolled.backends.cpu.tasks import Chunks
from unrolled.backends.steps import Steps
from unrolled.derivative import differentiate, kept_values
from unrolled.nn import choice, short

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS, "normalised": layer_norm(cells.lstm)}
TOLERANCE = 1e-9
LITTLE, MUCH = 1, 1_000_000  # work of a step: for threads that take rows, or share units
RAGGED = Steps(np.array([4, 4, 3, 1]), 5)  # the fifth row has no step at all
# How threads share a pass, and the rows of its steps.
WAYS = (
    ({}, Steps.dense(4, 3)),
    ({"threads": 2, "work": LITTLE}, RAGGED),
    ({"threads": 2, "work": MUCH}, Steps.dense(5, 1)),
    ({"threads": 3, "work": MUCH}, Steps.dense(3, 5)),
    ({"threads": 3, "work": LITTLE}, Steps.dense(3, 7)),
    ({"threads": 2, "pipelined": True}, Steps(np.array([2, 2, 2, 2, 1, 1, 1]), 2)),
    ({"threads": 4, "work": LITTLE}, Steps.dense(1, 1)),  # more than are of use
    ({"threads": 2, "work": LITTLE}, Steps(np.array([0, 0]), 2)),  # no row has a step
)


@pytest.fixture(autouse=True)
def a_few_rows_at_once(monkeypatch):
    """Passes have several chunks, so memory of one serves the next, too."""
    monkeypatch.setattr(whole, "FEW", 6)
    monkeypatch.setattr(whole, "MANY", 6)
    monkeypatch.setattr(whole, "PIPELINE", Chunks(2, 2))


def assert_passes_are_those_of_the_reference(case, way, *, reverse, recompute="cheap"):
    expected = case.both_passes(reference.run, reverse=reverse)
    found = case.both_passes(plain_kernels.run, reverse=reverse, recompute=recompute, **way)
    assert_close(found, expected, TOLERANCE)


def assert_inference_is_that_of_the_reference(case, way, *, reverse):
    given = case.cell.forward, case.sizes, [case.x], case.states, case.parameters, case.steps
    expected = reference.run(*given, reverse)
    found = [plain_kernels.run(*given, reverse, calls=2, **way)]
    if case.steps.rows == case.steps.length * case.steps.batch:
        found.append(plain_kernels.run_live(*given, reverse))
    for one in found:
        for part in ("outputs", "states"):
            for array, as_expected in zip(getattr(one, part), getattr(expected, part), strict=True):
                np.testing.assert_allclose(array, as_expected, TOLERANCE, TOLERANCE)


@pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS)
def test_every_cell_by_any_number_of_threads(cell):
    for number, (way, steps) in enumerate(WAYS):
        case = Case.draw(cell, steps, 9 if cell.name == "output" else 5, 9)
        reverse, seed = number % 2 == 1, {"seed": number}
        assert_passes_are_those_of_the_reference(case, way | seed, reverse=reverse)
        assert_inference_is_that_of_the_reference(case, way | seed, reverse=reverse)


def assert_a_drawn_cell_is_the_reference(
    cell, more, seed, way, reverse, recompute, lie, width, rows
):
    options, steps = way
    sizes = {name: size + more for name, size in different_sizes(cell).items()}
    case, options = Case.draw(cell, steps, 5, sizes, seed), {**options, "seed": seed}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "_vector_bytes", lambda: width)
        patch.setattr(whole, "FEW", rows)
        patch.setattr(whole, "MANY", rows)
        if lie:  # as weights do that are large
            patch.setattr(whole, "LEAST_UNITS", 1)
            patch.setattr(whole, "LEAST_BYTES", 1)
            patch.setattr(dots, "_UNITS_A_ROW", 0)
        assert_passes_are_those_of_the_reference(
            case, options, reverse=reverse, recompute=recompute
        )
        assert_inference_is_that_of_the_reference(case, options, reverse=reverse)


drawn = given(
    cell=random_cells(),
    more=st.integers(0, 7),
    seed=st.integers(0, 1000),
    way=st.sampled_from(WAYS),
    reverse=st.booleans(),
    recompute=st.sampled_from(["cheap", False, True]),
    lie=st.booleans(),
    width=st.sampled_from([16, 32, 64]),
    rows=st.sampled_from([6, 512]),  # of a chunk: several, or a single one
)


@settings(max_examples=50, deadline=None, derandomize=True)
@drawn
def test_cells_that_no_one_thought_of(**everything):
    assert_a_drawn_cell_is_the_reference(**everything)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@drawn
def test_many_cells_that_no_one_thought_of(**everything):
    assert_a_drawn_cell_is_the_reference(**everything)


def assert_a_layer_is_the_eager_one(call, many_threads, seed):
    other = call.on(backend="eager")
    with pytest.MonkeyPatch.context() as patch, plain_kernels.everywhere(seed):
        if many_threads:
            patch.setattr(sharing, "THREAD_WORK", 1)
            patch.setattr(sharing, "SHARED_WORK", 0)
            patch.setattr(sharing, "PIPELINE_WORK", 0 if seed % 2 else 10**9)
            for module in (choice, short):
                patch.setattr(module, "threads_at_hand", lambda: 2)
        outputs = call.run()
        gradients = call.gradients(outputs)
        with torch.no_grad():
            inferred = [call.run(), call.run()]
    expected = other.run()
    wanted = other.gradients(expected)
    expected = [array.detach() for array in expected]
    for found in ([array.detach() for array in outputs], *inferred):
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(list(gradients), list(wanted), rtol=TOLERANCE, atol=TOLERANCE)


drawn_layers = given(
    call=calls(random_cells(), backends=("cpu",)),
    many_threads=st.booleans(),
    seed=st.integers(0, 1000),
)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=HealthCheck)
@drawn_layers
def test_layers_that_no_one_thought_of(**everything):
    assert_a_layer_is_the_eager_one(**everything)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=HealthCheck)
@drawn_layers
def test_many_layers_that_no_one_thought_of(**everything):
    assert_a_layer_is_the_eager_one(**everything)


@pytest.mark.parametrize(
    "text",
    [
        """def ahead(x, c_prev, h_prev, *, W, U):
            c = tanh(W.c @ x)
            h = tanh(W.h @ x + U.h @ c_prev)
            return c, h""",
        """def made_of_itself(x, h_prev, c_prev, *, W, U, P):
            c = 0.9 * c_prev + tanh(W.c @ x + P.c * c_prev)
            h = 0.9 * h_prev + tanh(U.h @ c_prev)
            return h, c""",
    ],
)
def test_a_state_is_not_overwritten_while_a_product_reads_it(text):
    """In the next step, by a thread that is faster: no product stands before what makes it."""
    case = Case.draw(Cell.parse(text), Steps.dense(5, 2), 5, {"c": 17, "h": 9})
    for seed in range(6):
        way = {"threads": 2, "work": MUCH, "seed": seed}
        assert_passes_are_those_of_the_reference(case, way, reverse=False)


@pytest.mark.parametrize("active", [[0], [0, 0], [1], [2, 1]])
def test_products_of_nothing_have_room(active):
    """Gradients that the loop adds up are the only products here, of a number for each thread."""
    cell = Cell.parse(
        """def sums_alone(x, h_prev, *, p, b):
            h = tanh(x + p.h * h_prev + b.h)
            return h"""
    )
    case = Case.draw(cell, Steps(np.array(active), 2), 5, 5)
    assert_passes_are_those_of_the_reference(case, {}, reverse=False)


# what is wrong is noticed


def passes_of(case, change, way):
    """Both passes, by kernels with texts that are changed."""
    run = plain_kernels.run

    def run_changed(program, *given, **options):
        return run(program, *given, change=change, **options)

    return case.both_passes(run_changed, **way)


def training_texts(cell):
    """The texts of the kernels of both passes."""
    adjoint = differentiate(cell.forward)
    forward = cell.forward.with_outputs((cell.states[0],), kept_values(adjoint))
    return [kernel_for(program, np.dtype("float64")).text for program in (forward, adjoint)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # what nobody has written
        (
            r"store\(kept_steps, at, H_size \+ j, f\)",
            "pass",
            r"nobody has written kept_steps\[0, 9\]",
        ),
        # what is beyond a row, and beyond all rows
        (r"load\(b_parameters, j\)", "load(b_parameters, 4 * H_size + j)", r"\(36,\) of \(36,\)"),
        (r"store\(h_steps, at,", "store(h_steps, at + 1,", r"of \(12, 9\)"),
        # a wrong number
        (r"g = tanh\(g_pre\)", "g = tanh(g_pre) + 1e-6", "off by"),
    ],
)
def test_what_is_wrong_is_noticed(old, new, words):
    texts = training_texts(cells.lstm)
    assert any(re.search(old, text) for text in texts)
    case = Case.draw(cells.lstm, Steps.dense(4, 3), 5, 9)
    expected = case.both_passes(reference.run)
    with pytest.raises(AssertionError, match=words):
        assert_close(passes_of(case, lambda text: re.sub(old, new, text), {}), expected, TOLERANCE)


def is_noticed(case, text, changed):
    """Whether some of several ways for two threads finds fault with a changed text of a kernel."""
    for seed in range(6):
        for work in (LITTLE, MUCH):
            way = {"work": work, "threads": 2, "seed": seed}
            try:
                passes_of(case, lambda now: changed if now == text else now, way)
            except AssertionError:
                return True
    return False


@pytest.mark.parametrize("name", ["lstm", "gru", "simple"])
def test_no_meeting_of_threads_is_one_too_many_and_none_is_missing(name):
    """Without any of them, some thread touches what it does not know that another one has left."""
    meeting = re.compile(r"^( *)meet\(table, shares\)$", re.M)
    case = Case.draw(ALL_CELLS[name], Steps.dense(5, 4), 5, 19)
    for text in training_texts(case.cell):
        for place in meeting.finditer(text):
            without = text[: place.start()] + place[1] + "pass" + text[place.end() :]
            line = text[: place.start()].count("\n") + 1
            assert is_noticed(case, text, without), f"nobody misses line {line} of\n{text}"
