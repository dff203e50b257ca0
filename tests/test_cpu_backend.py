"""The CPU kernels against the reference, which is the truth."""

import gc
import logging
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import plain_kernels
import pytest
import whole_passes
from hypothesis import given, settings
from numba.core.errors import TypingError
from own_cells import OWN_CELLS
from passes import Case, assert_close
from random_cells import random_cells

import unrolled
from unrolled import Cell, cells
from unrolled.backends import cpu, files, reference
from unrolled.backends.cpu import kernel, memory, sharing, team, threads
from unrolled.backends.cpu.compilation import machine_code
from unrolled.backends.cpu.tables import Extent, Table
from unrolled.backends.cpu.units import ADDED_UP, OPERATIONS
from unrolled.backends.steps import Steps

pytestmark = pytest.mark.usefixtures("small_chunks")  # `test_cpu_whole` is about a single one
TOLERANCE = {"float64": 1e-11, "float32": 2e-5}
ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}
# Compiled in a quick run, in which `test_plain_kernels` has all of them.
QUICK = {"lstm", "stages"}  # in every way
IN_ONE_WAY = {"gru"}  # in float64 only
RAGGED = Steps(np.array([8, 8, 6, 3, 3, 1, 1]), 9)  # the ninth row has no step at all
LONG = Steps(np.array([3] * 20 + [2] * 25 + [1] * 30), 4)  # several chunks of a pipeline

# By machine code, and in a quick run by the same text as plain Python.
by_either = pytest.mark.parametrize(
    "run",
    [plain_kernels.run, pytest.param(cpu.run, marks=pytest.mark.slow)],
    ids=["plain", "compiled"],
)


@pytest.fixture
def memory_of_nothing(monkeypatch):
    """Arrays hold NaN until somebody has written to them."""
    empty = memory.empty

    def of_nothing(shape, dtype):
        array = empty(shape, dtype)
        array.view(np.uint8)[...] = 0xFF
        return array

    monkeypatch.setattr(memory, "empty", of_nothing)


def sizes_for(cell, hidden_size):
    return (hidden_size if cell.name == "output" else 5), hidden_size


def how(name, dtype):
    """Whether a cell is compiled, or only in the long proofs, or run as plain Python."""
    if name in QUICK or (dtype == "float64" and name in IN_ONE_WAY):
        return ()
    return pytest.mark.slow if dtype == "float64" or name in OWN_CELLS else pytest.mark.plain


@pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        pytest.param(cell, dtype, id=f"{name}-{dtype}", marks=how(name, dtype))
        for name, cell in ALL_CELLS.items()
        for dtype in ("float64", "float32")
    ],
)
def test_both_passes_equal_the_reference(cell, dtype):
    for steps, hidden_size in (
        (Steps.dense(6, 3), 33),
        (Steps.dense(1, 1), 1),
        (Steps.dense(4, 13), 16),
        (RAGGED, 17),
    ):
        case = Case.draw(cell, steps, *sizes_for(cell, hidden_size))
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            found = case.both_passes(cpu.run, dtype, reverse=reverse)
            assert_close(found, expected, TOLERANCE[dtype])
            assert all(array.dtype == dtype for array in found.values())


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=() if name in QUICK else pytest.mark.plain)
        for name, cell in ALL_CELLS.items()
    ],
)
def test_recomputing_gives_the_same(cell):
    case = Case.draw(cell, RAGGED, *sizes_for(cell, 9))
    expected = case.both_passes(reference.run)
    assert_close(case.both_passes(cpu.run, recompute=True), expected, TOLERANCE["float64"])


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True)
@given(random_cells())
def test_cells_that_no_one_thought_of(cell):
    """Compiled; `test_plain_kernels` has many more."""
    for steps in (Steps.dense(4, 3), RAGGED):
        case = Case.draw(cell, steps, 5, 5)
        expected = case.both_passes(reference.run)
        assert_close(case.both_passes(cpu.run), expected, 1e-10)
        assert_close(case.both_passes(cpu.run, recompute=True), expected, 1e-10)
    case = Case.draw(cell, LONG, 5, 5)
    found = case.both_passes(whole_passes.run, pipelined=True, threads=2)
    assert_close(found, case.both_passes(reference.run), 1e-9)


@by_either
@pytest.mark.parametrize("recompute", [False, True])
def test_a_state_that_products_before_the_loop_need_is_handed_on(run, recompute):
    """No state goes into it, so it is there before the loop, which must hand it on all the same."""
    cell = Cell.parse(
        """def ahead(x, c_prev, *, W, U, V):
            h = tanh(W.h @ x)
            c = tanh(U.c @ c_prev + V.c @ h)
            return c, h"""
    )
    for steps in (Steps.dense(4, 3), Steps.dense(1, 1), RAGGED):
        case = Case.draw(cell, steps, 5, 17)
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            found = case.both_passes(run, reverse=reverse, recompute=recompute)
            assert_close(found, expected, 1e-11)


@by_either
@pytest.mark.parametrize("recompute", ["cheap", False, True])
@pytest.mark.parametrize(
    "text",
    [
        """def in_a_row(x, h_prev, *, A, B, W, U):
            h = tanh(W.h @ (B.k @ (A.v @ x)) + U.h @ h_prev)
            return h""",
        """def forked(x, h_prev, *, A, B, D, E, F, U):
            e = tanh(E.e @ x)
            v = A.v @ e
            u = B.u @ v
            z = tanh(F.z @ v)
            h = tanh(D.h @ u + D.h @ e + z + U.h @ h_prev)
            return h""",
        """def handed_on(x, h_prev, c_prev, *, A, B, U):
            c = A.c @ x
            h = tanh(B.h @ c + U.h @ h_prev + U.h @ c_prev)
            return h, c""",
    ],
)
def test_products_directly_behind_each_other(text, recompute, run, memory_of_nothing):
    """What one leaves is read by the next, and not a copy of it that is made later."""
    for steps in (Steps.dense(4, 3), RAGGED):
        case = Case.draw(Cell.parse(text), steps, 5, 7)
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            found = case.both_passes(run, reverse=reverse, recompute=recompute)
            assert_close(found, expected, 1e-11)


def test_sizes_of_their_own():
    sizes = {"h": 3, "c": 18}
    case = Case.draw(cells.projected_lstm, Steps.dense(5, 4), 7, sizes)
    assert_close(case.both_passes(cpu.run), case.both_passes(reference.run), 1e-12)
    case = Case.draw(OWN_CELLS["two_sizes"], Steps.dense(5, 4), 7, {"h": 34, "c": 5})
    assert_close(case.both_passes(cpu.run), case.both_passes(reference.run), 1e-12)


def test_a_sequence_without_steps_hands_the_states_on():
    case = Case.draw(cells.lstm, Steps.dense(0, 3), 4, 5)
    found = case.both_passes(cpu.run)
    assert_close(found, case.both_passes(reference.run), 0)
    np.testing.assert_array_equal(found["last h"], case.states[0])
    np.testing.assert_array_equal(found["dc_0"], case.dstates[1])


@pytest.mark.usefixtures("threads_for_any_work")
@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, cell in ALL_CELLS.items()
    ],
)
def test_threads_share_the_units_of_any_cell(cell):
    case = Case.draw(cell, Steps(np.array([2, 2, 1, 1]), 2), *sizes_for(cell, 37))
    for reverse in (False, True):
        expected = case.both_passes(reference.run, reverse=reverse)
        found = case.both_passes(cpu.run, threads=3, reverse=reverse)
        assert_close(found, expected, TOLERANCE["float64"])


def test_a_thread_that_comes_too_late_does_nothing():
    case = Case.draw(cells.simple, Steps.dense(3, 1), 4, 40)
    expected = case.both_passes(cpu.run)
    came = []

    def late(function, table, asked):
        for _ in range(asked):  # one after the other: the first waits for the others in vain
            threads._callable(function)(table)
            came.append(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "THREAD_WORK", 1)
        patch.setattr(sharing, "SHARED_WORK", 0)
        patch.setattr(kernel, "run_together", late)
        found = case.both_passes(cpu.run, threads=3)
    assert 3 in came
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def come(delays, patience, inside):
    """Does a pass by threads that come after so many seconds each; adds how many were let in."""

    def run_whole(kernel, table, extent):
        table.numbers[team.PATIENCE] = patience
        whole_passes.run_by_threads(kernel, table, delays)
        inside.append(table.numbers[team.INSIDE])

    return run_whole


@pytest.mark.parametrize("work", [1_000, 1_000_000])  # threads take rows, or share units
def test_threads_with_some_tiles_of_rows_each_know_nothing_of_each_other(work):
    case, inside = Case.draw(cells.lstm, Steps.dense(60, 46), 3, 64), []
    alone = case.both_passes(whole_passes.run, work=work)
    run_whole = come((0, 0), 100_000_000, inside)
    for _ in range(3):
        found = case.both_passes(whole_passes.run, work=work, threads=2, run_whole=run_whole)
        assert_close(found, alone, 1e-11)
    assert inside == [2] * 6


@pytest.mark.parametrize(("patience", "number"), [(1, 1), (100_000_000, 2)])
@pytest.mark.parametrize(("rows", "work"), [(1, 1_000_000), (4, 1_000)])
def test_the_first_thread_waits_as_long_as_its_patience_lasts(patience, number, rows, work):
    """Of units or, where a step has little work, of rows, who was asleep does its share."""
    case, inside = Case.draw(cells.lstm, Steps.dense(20, rows), 3, 160), []
    alone = case.both_passes(whole_passes.run)
    run_whole = come((0, 0.1), patience, inside)
    found = case.both_passes(whole_passes.run, work=work, threads=2, run_whole=run_whole)
    assert inside == [number] * 2
    assert_close(found, alone, 1e-11)


def test_a_table_tells_how_long_others_are_waited_for(monkeypatch):
    monkeypatch.setattr(sharing, "CORES", 2)
    steps, sizes = Steps.dense(20, 4), {"I": 3, "H": 8}
    shared = sharing.share_out(steps, 10**6, True, 2)
    assert shared.patience > sharing.LEAST_PATIENCE
    text = cpu.kernel_for(cells.lstm.forward, np.dtype(np.float64)).whole
    table = Table(text, Extent(sizes, steps, shared, np.dtype(np.float64)))
    assert table.numbers[team.PATIENCE] == shared.patience


def test_the_more_work_the_longer_others_are_waited_for(monkeypatch):
    monkeypatch.setattr(sharing, "CORES", 2)
    row, rows = Steps.dense(100, 1), Steps.dense(100, 4)
    for steps, can_share, shares in (row, True, 2), (rows, False, 1):
        found = sharing.share_out(steps, 200_000, can_share, 2, 100_000)
        assert found.shares == shares
        assert found.patience == steps.rows * 300_000 // sharing.WORK_OF_A_PAUSE
        found = sharing.share_out(steps, 200_000, can_share, 3, 100_000)  # two cores
        assert found.patience == sharing.LEAST_PATIENCE
        found = sharing.share_out(steps, 10**9, can_share, 2)
        assert found.patience == sharing.MOST_PATIENCE
    assert sharing.share_out(Steps.dense(1, 2), 100, True, 2).patience == sharing.LEAST_PATIENCE


def test_ragged_rows_are_cut_into_parts_of_the_same_work():
    lengths = np.array([1000, 10, 10, 10, 10, 5, 0])
    steps = Steps((lengths > np.arange(1000)[:, None]).sum(1), 7)
    np.testing.assert_array_equal(steps.cut_rows(2), [0, 1, 6])  # the last row has no work
    np.testing.assert_array_equal(steps.cut_rows(1), [0, 7])
    np.testing.assert_array_equal(Steps.dense(4, 8).cut_rows(3), [0, 3, 5, 8])
    for some in (steps, RAGGED, Steps.dense(0, 3), Steps.dense(2, 0), Steps.dense(50, 3)):
        for parts in (1, 2, 5):
            cuts = some.cut_rows(parts)
            assert len(cuts) == parts + 1
            assert some.lengths[cuts[0] : cuts[-1]].sum() == some.rows


def test_extreme_inputs_stay_finite():
    for cell in (cells.lstm, cells.gru, cells.gru_original, cells.simple):
        case = Case.draw(cell, Steps.dense(4, 3), 5, 9)
        case.x[:] = np.where(case.x > 0, 1e4, -1e4)
        expected = case.both_passes(reference.run)
        assert_close(case.both_passes(cpu.run), expected, TOLERANCE["float64"])
        # In float32 a pre-activation of 1e4 is known to 1e-3, and so is what follows from it.
        found = case.both_passes(cpu.run, "float32")
        assert all(np.isfinite(array).all() for array in found.values())
        np.testing.assert_allclose(found["y"], expected["y"], atol=1e-2)


def test_only_what_is_wanted_is_summed_up():
    case = Case.draw(cells.lstm, Steps.dense(4, 3), 5, 9)
    everything = case.both_passes(cpu.run)
    adjoint = cells.lstm.backward
    _, kept = cpu.run(
        cells.lstm.forward.with_outputs(("h",), adjoint.inputs[1]),
        case.sizes,
        [case.x],
        case.states,
        case.parameters,
        case.steps,
    ).outputs
    some = cpu.run(
        adjoint,
        case.sizes,
        [case.x, kept, case.dy],
        case.dstates,
        case.parameters,
        case.steps,
        wanted=frozenset({"U"}),
    )
    assert some.totals.keys() == {"U"}
    np.testing.assert_array_equal(some.totals["U"], everything["dU"])


def test_the_kernel_writes_every_operation():
    assert OPERATIONS.keys() | ADDED_UP.keys() == reference.OPERATIONS.keys()


def test_a_kernel_is_a_file_that_begins_with_what_it_computes(tmp_path, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path))
    made = cpu.Kernel(cells.lstm.forward, np.dtype("float32"))
    text = made.path.read_text(encoding="utf-8")
    assert made.path.parent == tmp_path
    assert text.startswith('"""lstm, float32: generated by Unrolled')
    assert "for k in range(begin, end):" in text
    assert cpu.Kernel(cells.lstm.forward, np.dtype("float32")).path == made.path
    assert cpu.Kernel(cells.lstm.forward, np.dtype("float64")).path != made.path


RUN_A_CELL = """
import logging, numpy as np
from unrolled import Cell
from unrolled.backends import cpu
from unrolled.backends.steps import Steps
cell = Cell.parse("def fresh(x, h_prev, *, W):\\n    h = tanh(W.h @ x) + h_prev\\n    return h")
parameters = {"W": np.ones((2, 3))}
zeros = np.zeros((1, 2))
cpu.run(cell.forward, {"I": 3, "H": 2}, [np.ones((1, 3))], [zeros], parameters, Steps.dense(1, 1))
"""


def test_compiled_once_for_all_processes_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path))
    said = [
        subprocess.run([sys.executable, "-c", RUN_A_CELL], capture_output=True, check=True).stderr
        for _ in range(2)
    ]
    assert said[0].decode() == (
        "Unrolled compiles the CPU kernel of fresh (float64), once: some seconds.\n"
    )
    assert said[1] == b""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    work = "from test_cpu_backend import in_a_fork; in_a_fork()"
    done = subprocess.run(
        [sys.executable, "-c", work],
        cwd=__file__.rsplit("/", 1)[0],
        env={**os.environ, "PYTHONPATH": str(Path(unrolled.__file__).parents[1])},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0


def in_a_fork():
    """Use the pool, fork, and use it again in the child; the exit status tells how it went."""
    sharing.THREAD_WORK, sharing.SHARED_WORK = 1, 0
    case = Case.draw(cells.simple, Steps.dense(3, 4), 2, 8)
    expected = case.both_passes(cpu.run, threads=2)
    child = os.fork()
    if child == 0:
        found = case.both_passes(cpu.run, threads=2)
        os._exit(0 if all((found[n] == a).all() for n, a in expected.items()) else 1)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def test_where_the_cache_cannot_be_written_a_temporary_folder_serves(tmp_path, monkeypatch):
    monkeypatch.delenv("UNROLLED_CACHE", raising=False)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert files.cache_folder() != blocked / "unrolled"
    assert files.cache_folder().name.startswith("unrolled")


def test_the_announcement_is_a_log_record(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path))
    case = Case.draw(cells.simple, Steps.dense(2, 1), 2, 3)
    made = cpu.Kernel(cells.simple.forward, np.dtype("float64"))
    with caplog.at_level(logging.WARNING, logger="unrolled"):
        for _ in range(2):
            made.run(case.sizes, [case.x], case.states, case.parameters, case.steps)
    assert [record.getMessage() for record in caplog.records] == [
        "Unrolled compiles the CPU kernel of simple (float64), once: some seconds."
    ]


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_no_garbage_is_collected_while_a_kernel_is_compiled(tmp_path, collects, known):
    path = tmp_path / f"nothing_{collects}_{known}.py"
    result = "None" if known else "unknown"
    path.write_text(f"""
import gc
assert not gc.isenabled()
def nothing(address):
    return {result}
""")
    (gc.enable if collects else gc.disable)()
    try:
        with nullcontext() if known else pytest.raises(TypingError, match="unknown"):
            machine_code(path, "nothing", "void(int64)")
        assert gc.isenabled() == collects
    finally:
        gc.enable()


@pytest.mark.parametrize("count", [1, 2])
def test_denormals_are_zero_in_a_kernel_and_numbers_outside(count, monkeypatch):
    monkeypatch.setattr(sharing, "THREAD_WORK", 1)
    halved = Cell.parse("def halved(x, h_prev, *, a):\n    h = h_prev / 2 + a.h * x\n    return h")
    tiny = np.finfo(np.float32).tiny
    state = np.array([[tiny, 4 * tiny]] * 4, np.float32)
    arguments = (
        halved.forward, {"I": 2, "H": 2}, [np.zeros((4, 2), np.float32)], [state],
        {"a": np.ones(2, np.float32)}, Steps.dense(1, 4),
    )  # fmt: skip
    (last,) = cpu.run(*arguments, threads=count).states
    np.testing.assert_array_equal(last, np.array([[0, 2 * tiny]] * 4, np.float32))
    (exact,) = reference.run(*arguments).states  # this thread computes with them as before
    assert (exact[:, 0] > 0).all()
