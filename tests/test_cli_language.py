import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from rich.console import Console

from unrolled.cli import main
from unrolled.cli.display import TrainingDisplay, Units, clock
from unrolled.data.text import builtin_text
from unrolled.training.checkpoint import CheckpointError, RunFolder
from unrolled.training.language import Evaluated, StepDone
from unrolled.training.language_run import LanguageSettings

SMALL = ("--hidden", "12", "--embedding", "8", "--batch", "4", "--window", "16")
COMMAND = (sys.executable, "-c", "from unrolled.cli import main; main()")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def unrolled(monkeypatch, capfd) -> Run:
    """Runs the command in this process: its exit status, standard output and error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unrolled", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            status: object = 0
        except SystemExit as end:
            status = end.code or 0
        out, err = capfd.readouterr()
        assert isinstance(status, int)
        return status, out, err

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(builtin_text()[:3000])
    return path


@pytest.fixture
def trained(tmp_path: Path, text: Path, unrolled: Run) -> Path:
    out = tmp_path / "run"
    status, _, err = unrolled("train", "lm", text, "--out", out, "--epochs", 1, *SMALL)
    assert status == 0, err
    return out


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _assert_refused(outcome: tuple[int, str, str], message: str) -> None:
    """Status 2 and one sentence, which contains the message."""
    status, _, err = outcome
    assert message in err
    assert status == 2
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert err.endswith("\n")


def test_training_reports_its_rows_and_the_baselines(
    tmp_path: Path, text: Path, unrolled: Run
) -> None:
    out = tmp_path / "run"
    status, shown, err = unrolled("train", "lm", text, "--out", out, "--epochs", 3, *SMALL)
    assert status == 0, err
    assert "\x1b" not in shown
    assert "2,700 characters to train on, 300 held out" in shown
    assert re.search(r"epoch +time +training loss +held-out loss +bits/char\n", shown)
    rows = re.findall(r"^ +(\d\.\d) +0:\d\d +\d\.\d{3} +\d\.\d{3} +(\d\.\d{3})$", shown, re.M)
    assert [epoch for epoch, _ in rows] == ["1.0", "2.0", "3.0"]
    figures = dict(
        re.findall(r"^ *(this model|xz -9e|order-5 characters) +(\d\.\d{3})", shown, re.M)
    )
    assert figures.keys() == {"this model", "xz -9e", "order-5 characters"}
    assert figures["this model"] == min(figure for _, figure in rows)
    assert f"unrolled sample {out}" in shown
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "history.json",
        "best.safetensors",
        "last.safetensors",
    }


def test_a_terminal_shows_a_bar_with_figures_speed_and_time_left() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, _environ={})
    units = Units("character", tokens=10, characters=10, unencoded_bits=0, characters_per_token=1)
    with TrainingDisplay(console, units) as display:
        display.evaluated(Evaluated(9, 0.4, 1.0, training=2.5, held_out=1.386294, best=True))
        display.step(
            StepDone(10, 0.5, 0.25, 20.0, seconds_left=61, loss=2.25, tokens_per_second=4321)
        )
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "25%" in plain
    assert "loss 2.25  held-out 1.39  2.00 bits/char  4.3k chars/s  1:01 left" in plain


def test_units() -> None:
    words = Units("word", tokens=100, characters=500, unencoded_bits=50, characters_per_token=5)
    assert words.name == "perplexity"
    assert words.figure(2.0) == pytest.approx(7.389056)
    assert words.bits_per_character(2.0) == pytest.approx((200 / 0.693147 + 50) / 500, rel=1e-5)
    assert clock(59.6) == "1:00"
    assert clock(3725) == "1:02:05"


@pytest.mark.parametrize(("level", "figure"), [("byte", "bits/char"), ("word", "perplexity")])
def test_other_levels_train_and_write(
    tmp_path: Path, text: Path, unrolled: Run, level: str, figure: str
) -> None:
    out = tmp_path / "run"
    options = ("--out", out, "--epochs", 1, "--level", level, *SMALL)
    status, shown, _ = unrolled("train", "lm", text, *options)
    assert status == 0
    assert figure in shown
    assert ("Perplexity per word" in shown) == (level == "word")
    status, written, _ = unrolled("sample", out, "--prompt", "expression", "--seed", 1)
    assert status == 0
    assert written.startswith("expression")
    assert "<unk>" not in written


@pytest.mark.parametrize("cell", ["gru", "simple"])
def test_a_cell_comes_from_the_catalogue_or_a_file(
    tmp_path: Path, text: Path, unrolled: Run, cell: str
) -> None:
    from unrolled import cells

    equations = tmp_path / "my_cell.txt"
    equations.write_text(getattr(cells, cell).text)
    options = ("--epochs", 1, *SMALL)
    for name, out in ((cell, tmp_path / "one"), (equations, tmp_path / "two")):
        status, shown, _ = unrolled("train", "lm", text, "--cell", name, "--out", out, *options)
        assert status == 0
        assert f"\n{cell}, 1 layer of 12 units" in shown
    equations.unlink()
    one, two = (RunFolder(tmp_path / name).read("best")[0] for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert unrolled("sample", tmp_path / "two", "--length", 5)[0] == 0


def test_a_sample_begins_with_its_prompt_and_comes_back_from_its_seed(
    trained: Path, unrolled: Run
) -> None:
    options = ("--prompt", "The ", "--length", 50, "--temperature", 2)
    status, first, err = unrolled("sample", trained, *options, "--seed", 7)
    assert status == 0, err
    assert first.startswith("The ")
    assert len(first) == 4 + 50 + 1
    assert unrolled("sample", trained, *options, "--seed", 7)[1] == first
    assert unrolled("sample", trained, *options, "--seed", 8)[1] != first
    assert unrolled("sample", trained, *options)[1] != unrolled("sample", trained, *options)[1]


def test_top_k_of_one_and_temperature_zero_write_the_same(trained: Path, unrolled: Run) -> None:
    options = ("sample", trained, "--length", 30)
    greedy = unrolled(*options, "--temperature", 0)
    assert greedy == unrolled(*options, "--top-k", 1, "--temperature", 3)
    assert greedy == unrolled(*options, "--top-p", 1e-9)


def test_a_sample_is_written_as_it_is_drawn(trained: Path) -> None:
    command = (*COMMAND, "sample", str(trained), "--length", "1000000000", "--prompt", "The ")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(300)
        process.kill()
    assert first.startswith(b"The ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nowhere.txt",), "There is no file nowhere.txt"),
        (("folder",), "folder is a folder"),
        (("empty.txt",), "empty.txt is empty"),
        (("latin1.txt",), "latin1.txt is not UTF-8 text"),
        (("same.txt",), "The text has a vocabulary of one character"),
        (("short.txt",), "a batch of 16 streams needs at least 17"),
        (("tiny.txt",), "The text has only 3 characters"),
        (("text.txt", "--cell", "lsmt"), "There is no cell 'lsmt' and no file of that name"),
        (("text.txt", "--cell", "folder"), "The cell file folder cannot be read"),
        (("text.txt", "--cell", "latin1.txt"), "The cell file latin1.txt is not UTF-8"),
        (("text.txt", "--level", "letter"), "There is no level 'letter'"),
        (("text.txt", "--minutes", "1", "--epochs", "1"), "either in minutes or in epochs"),
        (("text.txt", "--epochs", "0"), "The epochs must be at least 1"),
        (("text.txt", "--minutes", "-1"), "The minutes must be more than 0"),
        (("text.txt", "--hidden", "0"), "hidden_size must be at least 1"),
        (("text.txt", "--optimizer", "newton"), "There is no optimiser 'newton'"),
        (("text.txt", "--resume"), "There is no run in"),
    ],
)
def test_bad_input_to_training_is_refused(
    tmp_path: Path, text: Path, unrolled: Run, monkeypatch, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes("über".encode("latin1") * 99)
    (tmp_path / "same.txt").write_text("a" * 999)
    (tmp_path / "short.txt").write_text("a short line")
    (tmp_path / "tiny.txt").write_text("abc")
    monkeypatch.chdir(tmp_path)
    before = _contents(tmp_path)
    _assert_refused(unrolled("train", "lm", *options, "--out", "run"), message)
    assert _contents(tmp_path) == before
    assert not Path("run").exists()


def test_a_run_in_the_way_is_not_overwritten(trained: Path, text: Path, unrolled: Run) -> None:
    before = _contents(trained)
    command = ("train", "lm", text, "--epochs", 1, *SMALL, "--out")
    _assert_refused(unrolled(*command, trained), "already holds a run; go on with it with --resume")
    _assert_refused(unrolled(*command, trained.parent), "is not empty and holds no run")
    _assert_refused(unrolled(*command, text), "is a file; name a new folder")
    assert _contents(trained) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hidden", "13"), "begun with --hidden 12, not 13"),
        (("--cell", "gru"), "begun with another cell, lstm"),
        (("other.txt",), "The text is not the one"),
    ],
)
def test_a_run_does_not_resume_as_another(
    trained: Path, unrolled: Run, monkeypatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(trained.parent)
    Path("other.txt").write_text("Quite another text.\n" * 30)
    before = _contents(trained)
    _assert_refused(unrolled("train", "lm", *options, "--out", trained, "--resume"), message)
    assert _contents(trained) == before


@pytest.mark.parametrize("name", ["config.json", "last.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_run_does_not_resume(
    trained: Path, unrolled: Run, name: str, damage: str
) -> None:
    file = trained / name
    file.write_bytes(file.read_bytes()[:-40] if damage == "cut" else b'{"a": 1}')
    before = _contents(trained)
    outcome = unrolled("train", "lm", "--out", trained, "--resume", "--epochs", 2)
    _assert_refused(outcome, name)
    assert _contents(trained) == before


@pytest.mark.parametrize("name", ["config.json", "best.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_run_does_not_sample(
    trained: Path, unrolled: Run, name: str, damage: str
) -> None:
    file = trained / name
    file.write_bytes(file.read_bytes()[:-40] if damage == "cut" else b'{"a": 1}')
    outcome = unrolled("sample", trained)
    _assert_refused(outcome, name)
    assert outcome[1] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--prompt", "Tschüß ☃"),
            "The vocabulary has no 'ß' (U+00DF), 'ü' (U+00FC), '☃' (U+2603)",
        ),
        (("--temperature", "-1"), "The temperature must be 0 (greedy) or more, not -1.0"),
        (("--top-k", "0"), "top-k must be at least 1, not 0"),
        (("--top-p", "0"), "top-p must be above 0 and at most 1, not 0.0"),
    ],
)
def test_bad_input_to_sampling_is_refused(
    trained: Path, unrolled: Run, options: tuple[str, ...], message: str
) -> None:
    outcome = unrolled("sample", trained, *options)
    _assert_refused(outcome, message)
    assert outcome[1] == ""


def test_a_folder_without_a_run_does_not_sample(tmp_path: Path, unrolled: Run) -> None:
    _assert_refused(unrolled("sample", tmp_path / "nowhere"), "There is no run in")
    _assert_refused(unrolled("sample", tmp_path), "There is no run in")


@pytest.mark.parametrize("missing", ["typer", "rich", "torch", "safetensors"])
def test_a_missing_package_is_named_with_its_remedy(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from unrolled.cli import main\n"
        "sys.argv = ['unrolled', 'sample', 'run']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"The command line needs {missing}, which is not installed; "
        'run: pip install "unrolled[train]"\n'
    )


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from unrolled.cli import main\n"
        "sys.argv = ['unrolled', 'train', 'lm', '--help']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--resume" in done.stdout


def test_the_help_tells_the_defaults(unrolled: Run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    _, shown, _ = unrolled("train", "lm", "--help")
    told = dict(re.findall(r"--([a-z-]+) .*Default: (.+?)\. *│", shown))
    settings = asdict(LanguageSettings())
    unset = {name for name, value in settings.items() if value is None}
    assert unset == {"minutes", "epochs", "learning_rate"}
    for name, value in settings.items():
        if name == "tied":
            assert told[name] == ("tied" if value else "no-tied")
        elif name not in unset:
            shown_value = f"{value:g}" if isinstance(value, float) else str(value)
            assert told[name.replace("_", "-")].split(",")[0] == shown_value
    rate = LanguageSettings().training().learning_rate.peak
    assert told["learning-rate"] == f"{rate} for adam, 0.5 for sgd"
    assert told["minutes"].startswith("2,")
    assert told["cell"] == "lstm"


LONG = ("--epochs", "8", "--checkpoint-every", "0.1", *SMALL)


def _begin(text: Path, out: Path) -> "subprocess.Popen[str]":
    """Begins a run in a process of its own, and waits until it is in the middle of an epoch."""
    command = (*COMMAND, "train", "lm", str(text), "--out", str(out), *LONG)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    while process.poll() is None:
        try:
            if RunFolder(out).read("last")[1]["epoch"] >= 1:
                break
        except CheckpointError:
            time.sleep(0.01)
    return process


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, text: Path, unrolled: Run) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = _begin(text, parts)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    step = RunFolder(parts).read("last")[1]["step"]
    status, _, err = unrolled("train", "lm", text, "--out", parts, *LONG, "--resume")
    assert status == 0, err
    status, _, err = unrolled("train", "lm", text, "--out", whole, *LONG)
    assert status == 0, err
    assert 0 < step < RunFolder(whole).read("last")[1]["step"]
    for name in ("best", "last"):
        one, other = RunFolder(whole).read(name)[0], RunFolder(parts).read(name)[0]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_interrupted_run_saves_and_says_how_to_go_on(
    tmp_path: Path, text: Path, unrolled: Run
) -> None:
    out = tmp_path / "run"
    process = _begin(text, out)
    process.send_signal(signal.SIGINT)
    shown, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = re.search(r"Stopped and saved at step (\d+)", shown)
    assert stopped
    assert f"unrolled train lm --out {out} --resume" in shown
    assert RunFolder(out).read("last")[1]["step"] == int(stopped[1])
    assert unrolled("sample", out, "--length", 5)[0] == 0
