"""Kernels on several threads: the same numbers for any team, and no waiting for who never comes."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from own_cells import OWN_CELLS
from passes import Case, assert_close

import unrolled
from unrolled import Cell, cells
from unrolled.backends import cpu, reference
from unrolled.backends.cpu import caches, kernel, sharing, threads as team
from unrolled.backends.steps import Steps

CELLS = {
    "gru_original": cells.gru_original,  # two stages forward, three back
    "projected_lstm": cells.projected_lstm,  # a product that makes a state whole
    "two_sizes": OWN_CELLS["two_sizes"],  # three operands, two of them of another size
    "stages": OWN_CELLS["stages"],
    # one product a step, which still reads what the next step makes before it
    "reset_first": Cell.parse(
        """def reset_first(x, h_prev, *, P, W, U):
            s = sigmoid(P.s * h_prev)
            h = tanh(W.h @ x + U.h @ (s * h_prev))
            return h"""
    ),
    "layer_norm": unrolled.layer_norm(cells.lstm),  # sums over units, which threads do not share
}
QUICK = {"gru_original", "projected_lstm", "reset_first"}
FEW = Steps(np.array([2, 2, 2, 1, 1]), 3)  # early and late rows, and one without a step
MANY = Steps(np.array([17, 17, 9, 9, 4, 1, 1]), 17)


@pytest.mark.usefixtures("threads_for_any_work", "any_chunks")
@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, cell in CELLS.items()
    ],
)
def test_any_number_of_threads_equals_the_reference(cell):
    for steps in (FEW, MANY):
        for hidden_size in (1, 7, 17, 33, 65):
            case = Case.draw(cell, steps, 5, hidden_size)
            for reverse in (False, True):
                expected = case.both_passes(reference.run, reverse=reverse)
                for count in (1, 2, 3, 5):
                    found = case.both_passes(cpu.run, reverse=reverse, threads=count)
                    assert_close(found, expected, 1e-11)


@pytest.mark.usefixtures("threads_for_any_work", "any_chunks")
@pytest.mark.parametrize("steps", [FEW, MANY], ids=["few rows", "many rows"])
@pytest.mark.parametrize("name", ["gru_original", "reset_first"])
def test_the_same_bits_whatever_else_the_machine_does(name, steps):
    case = Case.draw(CELLS[name], steps, 5, 70)
    first = case.both_passes(cpu.run, "float32", threads=3)
    done = threading.Event()

    def load():
        matrix = np.ones((200, 200))
        while not done.is_set():
            matrix = matrix @ matrix * 0.005

    others = [threading.Thread(target=load) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(20):
            found = case.both_passes(cpu.run, "float32", threads=3)
            for name, array in found.items():
                np.testing.assert_array_equal(array, first[name], err_msg=name)
    finally:
        done.set()
        for other in others:
            other.join()


@pytest.mark.usefixtures("threads_for_any_work", "any_chunks")
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_same_threads_give_the_same_bits(batch):
    """Of 16 some come late or never, and nobody waits for them."""
    case = Case.draw(cells.gru, Steps.dense(9, batch), 5, 20)
    expected = case.both_passes(reference.run)
    once = {}
    for count in 5 * (1, 2, 3, 16):
        found = case.both_passes(cpu.run, "float32", threads=count)
        first = once.setdefault(count if batch == 7 else 1, found)  # few rows: for any count
        assert_close(first, expected, 2e-5)
        for name, array in found.items():
            np.testing.assert_array_equal(array, first[name], err_msg=name)


@pytest.mark.usefixtures("threads_for_any_work", "any_chunks")
@pytest.mark.parametrize("batch", [1, 8])
def test_two_threads_of_the_user_at_once(batch):
    case = Case.draw(cells.lstm, Steps.dense(30, batch), 5, 20)
    expected = case.both_passes(cpu.run)
    wrong = []

    def work():
        for _ in range(10):
            found = case.both_passes(cpu.run, threads=2)
            if any((found[name] != array).any() for name, array in expected.items()):
                wrong.append(found)

    users = [threading.Thread(target=work) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not wrong


def forwards(cell, steps, hidden_size):
    """Both directions of a layer: what `cpu.run` takes for each, with numbers of their own."""
    cases = [Case.draw(cell, steps, 5, hidden_size, seed) for seed in (1, 2)]
    for case, reverse in zip(cases, (False, True), strict=True):
        yield case.sizes, cpu.Pass([case.x], case.states, case.parameters, reverse)


@pytest.mark.usefixtures("threads_for_any_work", "any_chunks")
@pytest.mark.parametrize("steps", [FEW, MANY], ids=["few rows", "many rows"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_both_directions_at_once_equal_one_after_the_other(steps, count):
    cell = cells.gru_original
    (sizes, first), (_, second) = forwards(cell, steps, 40)
    kernel = cpu.kernel_for(cell.forward, np.dtype("float64"))
    together = kernel.run_together(sizes, [first, second], steps, threads=count)
    for one, found in zip((first, second), together, strict=True):
        expected = reference.run(cell.forward, sizes, *one[:3], steps, one.reverse)
        for array, right in zip(
            (*found.outputs, *found.states), (*expected.outputs, *expected.states), strict=True
        ):
            np.testing.assert_allclose(array, right, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("any_chunks")
def test_both_directions_are_one_parallel_region(monkeypatch):
    torch = pytest.importorskip("torch")
    from unrolled import nn

    tables = []

    def counted(function, table, asked):
        tables.append(table)
        team.run_together(function, table, asked)

    monkeypatch.setenv("UNROLLED_THREADS", "2")
    monkeypatch.setattr(sharing, "THREAD_WORK", 1)
    monkeypatch.setattr(kernel, "run_together", counted)
    layer = nn.LSTM(5, 8, bidirectional=True)
    x, lengths = torch.randn(4, 3, 5), torch.tensor([4, 3, 1])
    y, _ = layer(x, lengths=lengths)
    assert len(tables) == 1
    y.sum().backward()
    assert len(tables) == 2


def test_threads_share_a_step_only_as_far_as_each_has_work(monkeypatch):
    monkeypatch.setattr(sharing, "SHARED_WORK", 25_000)
    few, many = Steps.dense(9, 1), Steps.dense(9, 64)
    for work, shares in ((1_000, 1), (60_000, 2), (260_000, 10), (4_000_000, 16)):
        found = sharing.share_out(few, work, True, 16)
        assert (found.shares, found.threads, found.parts) == (shares, shares, 1)
    # More rows are no reason: each thread could take some of them.
    assert sharing.share_out(Steps.dense(9, 4), 49_000, True, 2).shares == 1
    assert sharing.share_out(Steps.dense(9, 4), 50_000, True, 2).shares == 2
    found = sharing.share_out(few, 4_000_000, False, 16)  # units that cannot be shared
    assert (found.shares, found.threads, found.parts) == (1, 1, 1)
    found = sharing.share_out(many, 4_000_000, False, 16)
    assert (found.shares, found.threads, found.parts) == (1, 16, 16)


def test_threads_share_the_weights_that_one_cannot_hold(monkeypatch):
    monkeypatch.setattr(sharing, "SECOND_CACHE", 2 << 20)
    monkeypatch.setattr(sharing, "NEAR_WEIGHTS", 0)
    weights = (2 << 20) // 4
    for rows, count, itemsize, trains, shares in (
        (64, weights, 4, False, 1), (64, weights + 1, 4, False, 2), (64, weights, 8, False, 2),
        (65, weights, 8, False, 1), (32, weights, 8, True, 2), (33, weights, 8, True, 1),
    ):  # fmt: skip
        steps = Steps.dense(9, rows)
        found = sharing.share_out(steps, count, True, 2, itemsize=itemsize, trains=trains)
        assert (found.shares, found.parts) == (shares, 3 - shares)


def test_a_near_third_cache_lets_threads_take_rows_as_far_as_it_holds_the_weights(monkeypatch):
    monkeypatch.setattr(sharing, "SECOND_CACHE", 1 << 20)
    monkeypatch.setattr(sharing, "NEAR_WEIGHTS", 10 << 20)
    second, near = (1 << 20) // 4, (10 << 20) // 4
    for rows, count, trains, shares in (
        (4, second, False, 2), (5, second, False, 1), (10, second + 1, False, 2),
        (11, second + 1, False, 1), (10, near, True, 2), (11, near, True, 1),
        (64, near + 1, False, 2), (65, near + 1, False, 1), (32, near + 1, True, 2),
        (33, near + 1, True, 1),
    ):  # fmt: skip
        found = sharing.share_out(Steps.dense(9, rows), count, True, 2, trains=trains)
        assert (found.shares, found.parts) == (shares, 3 - shares)


def test_sizes_of_caches_are_what_the_system_tells(tmp_path):
    told = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M")]
    for number, texts in enumerate(told):
        (tmp_path / f"index{number}").mkdir()
        for name, text in zip(("level", "type", "size"), texts, strict=True):
            (tmp_path / f"index{number}" / name).write_text(f"{text}\n")
    found = caches.cache_sizes(tmp_path)
    assert found == caches.USUAL | {"L1": 48 << 10, "L2": 2 << 20}
    assert caches.cache_sizes(tmp_path / "nowhere") == caches.USUAL


@pytest.mark.usefixtures("threads_for_any_work", "any_chunks")
@pytest.mark.parametrize("batch", [1, 8])
def test_a_layer_gives_the_same_bits_each_time(batch, monkeypatch):
    """Outputs and all gradients, the large products of a long sequence among them."""
    torch = pytest.importorskip("torch")
    from unrolled import nn

    monkeypatch.setenv("UNROLLED_THREADS", "2")
    layer = nn.LSTM(40, 70, bidirectional=True)
    x = torch.randn(50, batch, 40, requires_grad=True)
    given = [x, *layer.parameters()]

    def passes():
        y, _ = layer(x)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), given)]

    first = passes()
    for _ in range(10):
        assert all(map(torch.equal, passes(), first))


SETTINGS = {"2": 2, "8": 8, "": None}


def test_a_number_of_threads_can_be_set(monkeypatch):
    monkeypatch.delenv("UNROLLED_THREADS", raising=False)
    assert unrolled.num_threads() is None
    for text, count in SETTINGS.items():
        monkeypatch.setenv("UNROLLED_THREADS", text)
        assert unrolled.num_threads() == count
    unrolled.set_num_threads(3)
    try:
        assert unrolled.num_threads() == 3  # whatever the environment says
    finally:
        unrolled.set_num_threads(None)
    assert unrolled.num_threads() is None


@pytest.mark.parametrize("count", [0, -2, 1.5, True, "2"])
def test_what_is_no_number_of_threads_is_refused(count, monkeypatch):
    with pytest.raises(unrolled.InputError, match=r"a whole number from 1 on; found"):
        unrolled.set_num_threads(count)
    if isinstance(count, str):
        return
    monkeypatch.setenv("UNROLLED_THREADS", str(count))
    with pytest.raises(unrolled.InputError, match="UNROLLED_THREADS is a whole number from 1 on"):
        unrolled.num_threads()


def test_layers_honour_torchs_number_of_threads_and_ours(monkeypatch, long_way):
    torch = pytest.importorskip("torch")
    from unrolled import nn

    asked = []
    run = cpu.Kernel.run_together

    def noted(kernel, *arguments, threads, **rest):
        asked.append(threads)
        return run(kernel, *arguments, threads=threads, **rest)

    monkeypatch.setattr(cpu.Kernel, "run_together", noted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    layer, x, lengths = nn.GRU(3, 4), torch.ones(3, 2, 3), torch.tensor([3, 1])
    layer(x, lengths=lengths)[0].sum().backward()
    unrolled.set_num_threads(3)
    try:
        layer(x, lengths=lengths)[0].sum().backward()
    finally:
        unrolled.set_num_threads(None)
    assert asked == [5, 5, 3, 3]


def test_torch_keeps_its_denormal_numbers():
    """A team's threads are torch's, too: a kernel puts the mode of each back."""
    torch = pytest.importorskip("torch")
    in_time(
        """
    torch.set_num_threads(2)
    for _ in range(3):
        passes(*cases[1])
    tiny = torch.full((1_000_000,), 1e-40)
    assert int((tiny * 0.5).count_nonzero()) == len(tiny)
        """,
        our_own=False,
    )
    assert torch.full((1,), 1e-40).mul(0.5) > 0


# Each in a process of its own, which can be ended if it waits for ever.

SECONDS = 300
BEGINNING = """
    import os, threading
    import torch
    from unrolled import cells, nn
    from unrolled.backends.cpu import sharing, threads
    from unrolled.nn import short
    sharing.THREAD_WORK, sharing.SHARED_WORK = 1, 0  # the least work is spread over threads
    if {long}:
        short.LIMIT = -1  # no sequence is short
    if {our_own}:
        threads.find_team = lambda: None
    else:
        assert threads.find_team() is not None

    def passes(layer, x, lengths=None):
        x = x.clone().requires_grad_()
        given = [x, *layer.parameters()]
        y, _ = layer(x, lengths=lengths)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), given)]

    def check(found, expected):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    torch.manual_seed(0)
    layers = [
        nn.LSTM(5, 33, bidirectional=True), nn.Recurrent(cells.gru_original, 5, 40),
    ]
    given = [
        (torch.randn(20, 1, 5), None), (torch.randn(20, 16, 5), None),
        (torch.randn(20, 2, 5), torch.tensor([20, 7])),
        (torch.randn(20, 16, 5), torch.arange(16)),
    ]
    cases = [(layer, x, lengths) for layer in layers for x, lengths in given]
    torch.set_num_threads(1)
    expected = [passes(*case) for case in cases]
"""
MORE_THREADS_THAN_CORES = """
    for count in (2, 3, 8, 2 * os.cpu_count() + 1):
        torch.set_num_threads(count)
        for case, right in zip(cases, expected, strict=True):
            check(passes(*case), right)
"""
SEVERAL_USERS = """
    wrong = []

    def use(number):
        torch.set_num_threads(2 + number % 2)  # each of these threads has a number of its own
        try:
            for _ in range(3):
                for case, right in zip(cases, expected, strict=True):
                    check(passes(*case), right)
        except BaseException as error:
            wrong.append(error)

    users = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    if wrong:
        raise wrong[0]
"""
FORKED = """
    torch.set_num_threads(2)
    large = torch.ones(600, 600)
    large @ large  # torch's own team is at work, too
    for case, right in zip(cases, expected, strict=True):
        check(passes(*case), right)
    layer, x = nn.LSTM(64, 128), torch.randn(30, 32, 64)
    right = passes(layer, x)
    child = os.fork()
    if child == 0:
        try:
            for count in (1, 3):
                os.environ["UNROLLED_THREADS"] = str(count)
                for case, wanted in zip(cases, expected, strict=True):
                    check(passes(*case), wanted)
                check(passes(layer, x), right)
            large @ large
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def in_time(code, our_own, long=False):
    """Run Python code in a process of its own, which must not take for ever."""
    text = textwrap.dedent(BEGINNING.format(our_own=our_own, long=long) + code)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        env={
            **environment,
            "PYTHONPATH": str(Path(unrolled.__file__).parents[1]),
            "CUDA_VISIBLE_DEVICES": "",  # beside one, torch refuses to differentiate in a fork
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # its children, too
        process.communicate()
        pytest.fail(f"after {SECONDS} seconds a thread still waits for one that never comes.")
    assert process.returncode == 0, output


posix = pytest.mark.skipif(os.name != "posix", reason="sessions and forks are POSIX's")


@posix
@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("our_own", [True, False], ids=["our own", "OpenMP's"])
def test_more_threads_than_cores(our_own, long):
    pytest.importorskip("torch")
    in_time(MORE_THREADS_THAN_CORES, our_own, long)


@posix
@pytest.mark.parametrize("our_own", [True, False], ids=["our own", "OpenMP's"])
def test_several_users_at_once(our_own):
    pytest.importorskip("torch")
    in_time(SEVERAL_USERS, our_own, long=our_own)


@posix
@pytest.mark.parametrize("our_own", [True, False], ids=["our own", "OpenMP's"])
def test_a_forked_process_runs_layers(our_own):
    pytest.importorskip("torch")
    in_time(FORKED, our_own, long=not our_own)
