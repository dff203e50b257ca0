"""One thread in the loop, another one before and behind it: the same bits, whoever comes when."""

import itertools
import random
import re

import numpy as np
import pytest
import whole_passes
from own_cells import OWN_CELLS
from passes import Case, assert_close

from unrolled import Cell, cells, layer_norm
from unrolled.backends import reference
from unrolled.backends.cpu import kernel_for, sharing, whole
from unrolled.backends.cpu.tables import Extent
from unrolled.backends.cpu.tasks import MANY, PIPELINE, Chunks, even_chunks, turns_of
from unrolled.backends.cpu.threads import run_together
from unrolled.backends.steps import Steps
from unrolled.derivative import differentiate, kept_values

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS, "normalised": layer_norm(cells.lstm)}
QUICK = {"lstm", "deep_input"}  # in a quick run `test_plain_kernels` has all of them
CHUNK = PIPELINE.each
RAGGED = Steps(np.array([3] * 20 + [2] * 25 + [1] * 30), 4)  # the fourth row has no step at all
SOME = (Steps.dense(2 * CHUNK + 5, 1), RAGGED, Steps.dense(CHUNK, 2), Steps.dense(1, 1))

every_cell = pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, cell in ALL_CELLS.items()
    ],
)


def drawn(cell, steps, hidden_size):
    return Case.draw(cell, steps, hidden_size if cell.name == "output" else 5, hidden_size)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.usefixtures("threads_for_any_work")
@every_cell
def test_both_passes_equal_the_reference(cell):
    for steps in SOME:
        case = drawn(cell, steps, 19)
        for reverse in (False, True):
            expected = case.both_passes(reference.run, reverse=reverse)
            alone = case.both_passes(whole_passes.run, reverse=reverse, pipelined=True)
            assert_close(alone, expected, 1e-11)
            for _ in range(3):
                found = case.both_passes(
                    whole_passes.run, reverse=reverse, pipelined=True, threads=2
                )
                assert_same_bits(found, alone)


@pytest.mark.usefixtures("threads_for_any_work")
@pytest.mark.parametrize("name", ["lstm", "deep_input"])
def test_what_is_computed_again_is_computed_ahead(name):
    case = drawn(ALL_CELLS[name], Steps.dense(70, 1), 9)
    expected = case.both_passes(reference.run)
    found = case.both_passes(whole_passes.run, recompute=True, pipelined=True, threads=2)
    assert_close(found, expected, 1e-11)


@pytest.mark.parametrize("name", ["lstm", "deep_input"])
def test_what_is_not_wanted_is_not_written_and_changes_nothing(name):
    case = drawn(ALL_CELLS[name], Steps.dense(50, 1), 8)
    adjoint = differentiate(case.cell.forward)
    everything = case.both_passes(whole_passes.run, pipelined=True)
    families = set(case.parameters)
    for wanted in (set(), {"W"}, families - {"W"}, families, {"dx"}):

        def run(program, *arguments, wanted=wanted, **options):
            chosen = frozenset(wanted) if program == adjoint else None
            return whole_passes.run(program, *arguments, wanted=chosen, **options)

        found = case.both_passes(run, pipelined=True, threads=2)
        if "dx" not in wanted:
            del found["dx"]
        assert_same_bits(found, {name: everything[name] for name in found})


def come_late(count, seed):
    """Does a pass by so many threads that come when they come, if they come at all."""
    draw = random.Random(seed)

    def run_whole(kernel, table, extent):
        delays = [draw.choice((0, 0, 1e-5, 1e-4, 1e-3)) for _ in range(count)]
        whole_passes.run_by_threads(kernel, table, delays)

    return run_whole


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_may_come_late_and_be_too_many(count):
    case = drawn(cells.gru_original, Steps.dense(300, 1), 40)
    alone = case.both_passes(whole_passes.run, pipelined=True)
    for seed in range(20):
        late = come_late(count, seed)
        found = case.both_passes(whole_passes.run, pipelined=True, run_whole=late)
        assert_same_bits(found, alone)


@pytest.mark.usefixtures("threads_for_any_work")
def test_more_threads_than_are_of_use():
    case = drawn(cells.lstm, Steps.dense(200, 1), 16)
    alone = case.both_passes(whole_passes.run, pipelined=True)

    def run_whole(kernel, table, extent):
        table.begin()
        run_together(kernel.address_of_whole, table.address, 6)

    for _ in range(5):
        found = case.both_passes(whole_passes.run, pipelined=True, run_whole=run_whole)
        assert_same_bits(found, alone)


@pytest.mark.usefixtures("threads_for_any_work")
@pytest.mark.parametrize("threads", ["4", "5"])
def test_both_directions_of_a_layer(threads, monkeypatch):
    """Two tables, one behind the other, with two threads each."""
    torch = pytest.importorskip("torch")
    from unrolled import nn

    monkeypatch.setattr(sharing, "PIPELINE_WORK", 1)
    monkeypatch.setattr(sharing, "SHARED_WORK", 10**9)
    layer = nn.GRU(9, 16, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(150, 1, 9, dtype=torch.float64, requires_grad=True)
    found = {}
    for count in ("1", threads, threads):
        monkeypatch.setenv("UNROLLED_THREADS", count)
        y, h = layer(x)
        gradients = torch.autograd.grad(y.square().sum() + h.sum(), [x, *layer.parameters()])
        found.setdefault(count, []).append([y.detach(), h.detach(), *gradients])
    first, second = found[threads]
    assert all(map(torch.equal, first, second))
    for one, other in zip(found["1"][0], first, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_one_row_of_enough_work_is_a_pipeline(monkeypatch):
    monkeypatch.setattr(sharing, "SHARED_WORK", 25_000)
    monkeypatch.setattr(sharing, "SHARED_WORK_IN_TRAINING", 70_000)
    one, two = Steps.dense(1_000, 1), Steps.dense(1_000, 2)
    work, outside = 20_000, 16_000
    found = sharing.share_out(one, work, True, 8, outside)
    assert (found.pipelined, found.threads, found.shares) == (True, 2, 1)
    assert sharing.share_out(one, work, False, 2, outside).pipelined
    assert not sharing.share_out(one, work, True, 1, outside).pipelined  # nobody else is there
    assert not sharing.share_out(one, work, True, 2, 0).pipelined  # nothing else is to be done
    assert not sharing.share_out(Steps.dense(50, 1), work, True, 2, outside).pipelined
    assert not sharing.share_out(two, work // 4, True, 2, outside).pipelined  # a row each
    assert sharing.share_out(one, 10 * work, True, 2, outside).shares == 2
    # Training has more to do beside the loop than inference.
    assert sharing.share_out(one, 5 * work, True, 2, outside).shares == 2
    assert sharing.share_out(one, 5 * work, True, 2, outside, trains=True).pipelined
    assert sharing.share_out(one, 10 * work, True, 2, outside, trains=True).shares == 2
    assert sharing.share_out(one, 5 * work, True, 2, 0, trains=True).shares == 2


def test_work_outside_the_loop_is_not_counted_as_the_loops():
    loop = "    h = tanh({} + U.h @ h_prev)\n    return h"
    plain = Cell.parse(f"def plain(x, h_prev, *, U):\n{loop.format('x')}")
    fed = Cell.parse(
        "def fed(x, h_prev, *, W, V, U):\n    u = tanh(W.u @ x)\n    v = sigmoid(V.v @ u)\n"
        f"{loop.format('v')}"
    )
    found = [
        kernel_for(cell.forward, np.dtype("float32")).layout.work_of_a_row(cell.bind(9, 9))
        for cell in (plain, fed)
    ]
    # A product, and vectors: its result, a sum and a tanh. The sigmoid is done where it is needed.
    assert found == [9 * 9 + 8 * 9 * 3, 9 * 9 + 8 * 9 * 4]


def test_what_a_single_row_reads_next_is_asked_for_before_a_product():
    cell = layer_norm(cells.lstm)
    for program, asked in ((cell.forward, "W_i_centred"), (cell.backward, "kept")):
        loop = kernel_for(program, np.dtype("float32")).text.partition("def loop(")[2]
        before_product = loop.partition(" multiply(")[0]
        assert f"fetch({asked}_steps, at, j)" in before_product


@pytest.mark.parametrize("cell", [cells.lstm, cells.gru_original], ids=str)
def test_a_row_asks_for_what_the_row_ahead_reads_and_for_the_lines_it_writes(cell):
    program = cell.forward.with_outputs((cell.states[0],), kept_values(cell.backward))
    loop = kernel_for(program, np.dtype("float32")).text.partition("def loop(")[2]
    for stage in loop.split("multiply_group(")[1:]:
        of_vectors = stage.partition("if left:")[0]
        touched = re.findall(r"(?:load|store)\((\w+_steps), at, ([^,)]+)", of_vectors)
        asked = re.findall(r"fetch\((\w+_steps), ahead, ([^,)]+)\)", of_vectors)
        assert touched
        assert sorted(asked) == sorted(set(touched))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("program", [cells.lstm.forward, cells.gru_original.backward], ids=str)
def test_the_row_ahead_is_the_next_that_a_thread_comes_to(program, reverse):
    text = kernel_for(program, np.dtype("float32")).text
    step, base_ahead, ahead = (
        re.search(rf"^ +{name} = (.*)$", text, re.MULTILINE)[1]
        for name in ("step", "base_ahead", "ahead")
    )
    steps = Steps(np.array([6] * 3 + [4] * 2 + [3]), 7)
    found, following, end = [], [], steps.length
    first, last = 2, 6
    for k in range(end):
        here = {
            "k": k,
            "first": first,
            "end": end,
            "reverse": reverse,
            "active": steps.active,
            "offset": steps.offset,
        }
        number = eval(step, here)
        here["rows"] = min(steps.active[number], last) - first
        here["base"] = steps.offset[number]
        here["base_ahead"] = eval(base_ahead, here)
        for row in range(first, first + here["rows"]):
            found.append(here["base"] + row)
            following.append(eval(ahead, here | {"row": row, "at": here["base"] + row}))
    assert following[:-1] == found[1:]


def test_the_kernel_says_what_the_tasks_are():
    text = kernel_for(differentiate(cells.lstm.forward), np.dtype("float32")).text
    for title in ("the loop", "after the loop", "gradients of parameters"):
        assert f":  # {title}\n" in text


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 31, 32, 33, 64, 65, 200])
def test_chunks_are_all_steps_one_after_the_other(length):
    even = [even_chunks(length, rows, 512) for rows in (0, length, 3 * length, 50 * length)]
    even += [even_chunks(length, rows, 6) for rows in (0, length, 3 * length, 50 * length)]
    for chunks in (PIPELINE, *even):
        found = [turns_of.py_func(chunk, *chunks, length) for chunk in range(chunks.count(length))]
        assert found[0][0] == 0
        assert found[-1][1] == length
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))
        assert all(start < end <= start + max(chunks) for start, end in found if length)
        assert all(start % 2 == 0 for start, _ in found)  # two buffers change places at each step


def test_chunks_of_a_forward_pass_stay_in_the_second_caches(monkeypatch):
    text, steps = kernel_for(cells.lstm.forward, np.dtype(np.float32)).whole, Steps.dense(3200, 16)
    monkeypatch.setattr(whole, "SECOND_CACHE", 2 << 20)
    for hidden, threads, is_zen, rows in (
        (128, 2, False, 1024), (256, 2, False, 512), (512, 2, False, MANY), (128, 1, False, 512),
        (16, 2, False, MANY), (256, 2, True, MANY),
    ):  # fmt: skip
        monkeypatch.setattr(whole, "WIDE_ZEN", is_zen)
        extent = Extent(
            {"I": 8, "H": hidden}, steps, sharing.share_out(steps, 1000, True, threads),
            np.dtype(np.float32),
        )  # fmt: skip
        assert text.chunks(extent).each * steps.batch == rows


def test_chunks_have_about_so_many_rows():
    assert even_chunks(150, 150 * 16, 512) == Chunks(30, 30)
    assert even_chunks(35, 35 * 20, 512) == Chunks(36, 36)  # the half of them would be too few
    assert even_chunks(28, 28 * 128, 512) == Chunks(4, 4)
    assert even_chunks(5, 5 * 2000, 512) == Chunks(2, 2)


@pytest.mark.usefixtures("small_chunks")
def test_a_ragged_batch_is_a_single_chunk():
    """Threads have the same work of its rows in all steps, not in some."""
    text, sizes = kernel_for(cells.lstm.forward, np.dtype("float32")).whole, {"I": 3, "H": 4}
    for steps, single in ((RAGGED, True), (Steps.dense(75, 3), False)):
        sharing_of = sharing.share_out(steps, 100, True, 1)
        chunks = text.chunks(Extent(sizes, steps, sharing_of, np.dtype("float32")))
        assert (chunks.count(steps.length) == 1) == single
