"""`unrolled cells` and `unrolled show`, in a process of their own."""

import subprocess
import sys

from unrolled import cells
from unrolled.views.latex import latex


def unrolled(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from unrolled.cli import main; main()", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_cells_lists_the_catalogue():
    done = unrolled("cells")
    assert done.returncode == 0
    for name in cells.catalogue():
        assert f"\n{name} " in done.stdout


def test_show_prints_what_follows_from_the_equations():
    done = unrolled("show", "lstm")
    assert done.returncode == 0
    assert cells.lstm.text.strip() in done.stdout
    assert str(cells.lstm.backward) in done.stdout
    assert "[U.i U.f U.g U.o] @ h_prev" in done.stdout
    assert latex(cells.lstm.equations) in done.stdout


def test_show_reads_equations_from_a_file(tmp_path):
    path = tmp_path / "minimal.txt"
    path.write_text("def minimal(x, h_prev, *, W):\n    h = tanh(W.h @ x) * h_prev\n    return h\n")
    done = unrolled("show", str(path))
    assert done.returncode == 0
    assert "minimal_backward" in done.stdout


def test_a_wrong_name_or_a_wrong_equation_is_a_sentence_and_status_2(tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_text("def wrong(x, h_prev, *, W):\n    h = tanh(W.h @ x) * g\n    return h\n")
    for name, message in (
        ("lstn", "There is no cell 'lstn' and no file of that name; the catalogue has lstm, gru"),
        (str(path), "g is never given"),
    ):
        done = unrolled("show", name)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
