"""The benchmarks run, and what they compare agrees. No time is asserted."""

import importlib.util
import json
import shutil
from dataclasses import replace

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import cpu, features, peers, report, shapes, unfused
from benchmarks.machine import BARRIER, Level, Machine, Work
from benchmarks.nothing import Nothing
from benchmarks.passes import agreement
from benchmarks.report import Settings
from benchmarks.turns import ONCE, Turns

MACHINE = Machine(
    threads=2,
    flops=100e9,
    sigmoid=1e-9,
    waiting=20e-9,
    levels=(Level("L1", 32 << 10, 100e9), Level("memory", 1 << 62, 10e9)),
)


def test_the_machine_multiplies_as_fast_as_the_quicker_of_the_libraries():
    seconds = dict.fromkeys(MACHINE.probes(), 4.0)
    slow = MACHINE.at_the_time(seconds).flops
    assert slow == 2 * 1024**3 / 4 / MACHINE.threads
    libraries = [name for name in seconds if name.startswith("product")]
    assert libraries
    for name in libraries:
        assert MACHINE.at_the_time({**seconds, name: 1.0}).flops == 4 * slow


def settings(*cells, without=("compiled",)):
    return Settings(MACHINE, ONCE, frozenset(cells), True, frozenset(without), lambda text: None)


def check(tables, count):
    for table in tables:
        assert len(table.rows) == count
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.markdown().count("\n") == count + 3


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_what_torch_takes_for_a_call_is_that_of_the_same_tensors(kind):
    layer = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    nothing = Nothing(layer, x.detach(), 2)
    y, state = layer(x)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = nothing(x)
        expected = [y, *(state if isinstance(state, tuple) else [state])]
        assert [one.shape for one in found] == [one.shape for one in expected]
        assert all(one.requires_grad == grad for one in found)
    given = [x, *layer.parameters()]
    gradients = torch.autograd.grad(found[0], given, torch.ones_like(y))
    assert [one.shape for one in gradients] == [one.shape for one in given]


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.plain] * (k != "RNN")) for k in shapes.KINDS]
)
def test_the_shapes_and_their_peers(kind):
    onnx = all(map(importlib.util.find_spec, ("onnx", "onnxruntime")))
    rows = list(shapes.run(settings(kind.lower())))
    assert len(rows) == 2 * len(shapes.TINY)
    for row in rows:
        assert {"ours", "torch.nn"} <= row["times"].keys()
        assert ("loop" in row["times"]) != row["shape"]["ragged"]
        assert ("ONNX Runtime" in row["times"]) == (onnx and row["pass"] == "inference")
        assert 0 <= row["difference"] < 1e-4
        assert 0 < row["call"] < row["limit"]
    check(shapes.tables(rows), len(shapes.TINY))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
@pytest.mark.parametrize("longest", [0, 99], ids=["step", "loop"])
def test_the_compiled_peers_agree(monkeypatch, longest):
    monkeypatch.setattr(peers, "UNROLLED", longest)
    monkeypatch.setattr(shapes, "TINY", shapes.TINY[:1])
    rows = list(shapes.run(settings("gru", without=())))
    assert all("compiled" in row["times"] for row in rows)
    monkeypatch.setattr(unfused, "KINDS", {"gru_original": unfused.KINDS["gru_original"]})
    (row,) = unfused.run(settings(without=()))
    assert "compiled" in row["times"]
    check(unfused.tables([row]), 1)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.plain] * (k != "gru_original")) for k in unfused.KINDS],
)
def test_cells_that_no_library_has(kind):
    (row,) = unfused.run(settings(kind))
    assert row["times"].keys() == {"ours", "LSTM", "loop"}
    assert row["difference"] < 1e-4
    assert 0 < row["work"] <= 1
    check(unfused.tables([row]), 1)


SOME = (
    "plain", "lengths, uniform", "initial state given", "all states", features.FIVE,
    "truncated BPTT, 5 windows", "two layers", "inference", "streaming, step by step",
)  # fmt: skip


@pytest.mark.parametrize(
    "names", [SOME, pytest.param((*features.FEATURES,), marks=pytest.mark.plain)]
)
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.plain] * (k != "lstm")) for k in features.KINDS]
)
def test_features_beside_the_plain_layer(monkeypatch, kind, names):
    monkeypatch.setattr(features, "FEATURES", {name: features.FEATURES[name] for name in names})
    rows = list(features.run(settings(kind)))
    assert [row["feature"] for row in rows] == list(names)
    for row in rows:
        assert row["time"]["calls"] > 0
        assert (row["cost"] == 1) == (features.FEATURES[row["feature"]].plain == row["feature"])
    check(features.tables(rows), len(names))


def test_a_peer_that_differs_is_found():
    ones = torch.ones(3)
    assert agreement({"ours": lambda: ones, "peer": lambda: ones * (1 + 1e-5)}) < 1e-4
    with pytest.raises(ArithmeticError, match="ours and peer differ"):
        agreement({"ours": lambda: ones, "peer": lambda: ones.cumsum(0)})
    with pytest.raises(ArithmeticError, match="ours and peer differ"):
        agreement({"ours": lambda: ones * float("nan"), "peer": lambda: ones})


def test_a_slow_call_has_fewer_turns():
    calls = []
    for slow, expected in ((0.0, 2 + 2), (99.0, 2 + 5)):
        calls.clear()
        turns = Turns(rounds=5, block=0.0, pause=0.0, slow=slow)
        timing = turns.time({"a": lambda: calls.append(0)})["a"]
        assert len(calls) == expected
        assert timing.calls == expected - 1
        assert timing.low <= timing.median <= timing.high


def test_the_limit_is_arithmetic_reading_waiting_or_meeting():
    small, large = Work(1, 1, 1), Work(4, 5, 2)
    # One row, U small: one core alone, which reads 16 KiB, because two would have to meet. It waits
    # for one function, and forward only.
    reading = 4 * 64**2 / 100e9
    assert MACHINE.step(1, small, 64) == pytest.approx(reading + 20e-9)
    assert MACHINE.step(1, small, 64, forward=False) == pytest.approx(reading)
    # One row, U in the memory, all but what the first cache keeps of it: two cores read half of it
    # each, and meet.
    near = 32 << 10
    reading = near / 100e9 + (4 * 4 * 512**2 / 2 - near) / 10e9
    assert MACHINE.step(1, large, 512) == pytest.approx(reading + BARRIER + 2 * 20e-9)
    # Many rows: arithmetic, on both, and functions, which take their time but are not waited for.
    multiplying, functions = 2 * 64 * 4 * 512**2 / 200e9, 5 * 64 * 512 * 1e-9 / 2
    assert MACHINE.step(64, large, 512) == pytest.approx(multiplying + functions)
    # All products of a pass forward, and three times as many in training.
    infer, train = (MACHINE.layer([64] * 5, large, 128, 512, t) for t in (False, True))
    products = 5 * 2 * 64 * 4 * 512 * (512 + 128) / 200e9
    assert infer == pytest.approx(products + 5 * functions)
    assert train == pytest.approx(3 * products + 5 * functions)


def test_what_was_read_last_is_read_from_the_nearest_caches():
    near, far = Level("L1", 1000, 100.0), Level("memory", 1 << 62, 1.0)
    middle = Level("L2", 3000, 10.0)
    machine = replace(MACHINE, levels=(near, middle, far))
    assert machine.reading(500) == pytest.approx(5)
    assert machine.reading(2500) == pytest.approx(10 + 150)
    assert machine.reading(3500) == pytest.approx(10 + 200 + 500)
    # Some have a third cache that is no larger than the second.
    odd = replace(MACHINE, levels=(near, middle, replace(near, bandwidth=2.0), far))
    assert odd.reading(3500) == pytest.approx(10 + 200 + 500)


def test_the_machine_takes_sigmoids_as_fast_as_the_quicker():
    seconds = dict.fromkeys(MACHINE.probes(), 4.0)
    names = [name for name in seconds if name.startswith("sigmoids")]
    assert len(names) == 2
    for name in names:
        assert MACHINE.at_the_time({**seconds, name: 1.0}).sigmoid == 1 / 2**14
    assert MACHINE.at_the_time({**seconds, "a sigmoid of a sigmoid": 8.0}).waiting == 8 / 2**14


def test_ragged_shapes_count_what_takes_part():
    shape = shapes.Shape(10, 4, 3, 5, ragged=True)
    assert shape.lengths.tolist() == [10, 7, 4, 1]
    assert shape.batches == [4, 3, 3, 3, 2, 2, 2, 1, 1, 1]
    assert shape.operations(1) == 2 * 22 * 5 * (3 + 5)


def test_what_misses_its_mark_is_marked():
    assert report.ratio(1.2, 1.5) == "**1.20 of 1.5**"
    assert report.ratio(1.6, 1.5) == "1.60 of 1.5"
    assert report.ratio(1.6, ceiling=1.3) == "**1.60**"
    assert report.percent(0.3, 0.6) == "**30%**"
    assert report.ratio(None) == report.microseconds(None)
    assert report.microseconds(17.6e-3) == "17600"
    assert report.microseconds(1e-6) == "1.00"


def test_a_section_of_a_page_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n", encoding="utf-8")
    for text in ("first", r"second \1"):
        report.write(page, "a", text)
    report.write(page, "b", "new")
    assert page.read_text(encoding="utf-8") == (
        "before\n<!-- a: begin -->\nsecond \\1\n<!-- a: end -->\nafter\n"
        "<!-- b: begin -->\nnew\n<!-- b: end -->\n"
    )


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(cpu.main)
    return lambda *arguments: CliRunner().invoke(app, [str(word) for word in arguments])


def test_the_command_writes_numbers_tables_and_the_roofline(command, tmp_path):
    numbers, page, plot = (tmp_path / name for name in ("all.json", "page.md", "roofline.svg"))
    result = command(
        "--quick", "--without", "compiled", "--only", "shapes", "--cell", "RNN",
        "--json", numbers, "--markdown", page, "--plot", plot,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert found["machine"]["flops"] > 0
    assert {level["name"] for level in found["machine"]["levels"]} == {"L1", "L2", "L3", "memory"}
    assert len(found["sections"]["shapes"]) == 2 * len(shapes.TINY)
    assert page.read_text(encoding="utf-8").count("| RNN |") == 2 * len(shapes.TINY)
    assert "<svg" in plot.read_text(encoding="utf-8")


def test_the_command_refuses_what_it_does_not_know(command):
    assert "none of these sections" in command("--only", "shapes", "--cell", "lstmm").output
    assert "roofline" in command("--only", "features", "--plot", "x.svg").output
