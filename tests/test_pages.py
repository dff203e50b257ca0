"""The README says what is true: its code runs, its errors are the errors, its links lead on."""

import re
from pathlib import Path

import pytest

import unrolled

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run_one_after_the_other(tmp_path, capsys):
    # From a file, because equations are read from their source.
    code = "\n".join(text for language, text in BLOCKS if language == "python")
    path = tmp_path / "readme.py"
    path.write_text(code, encoding="utf-8")
    namespace = {"__name__": "readme"}
    exec(compile(code, str(path), "exec"), namespace)
    assert namespace["gates"].shape == (100, 4, 32)
    assert "dh_prev" in capsys.readouterr().out


def test_the_error_is_the_error_that_a_newcomer_sees():
    shown = next(text for language, text in BLOCKS if text.startswith("cell 'minimal'"))
    with pytest.raises(unrolled.EquationError) as error:
        unrolled.Cell.parse(
            "@cell\n"
            "def minimal(x, h_prev, *, W, U, b):\n"
            "    z = sigmoid(W.z @ x + U.z @ h_prv + b.z)\n"
            "    h = z * h_prev\n"
            "    return h\n"
        )
    assert str(error.value) == shown.strip()


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_extras_that_it_names_are_there():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for found in re.findall(r"\.\[([\w,]+)\]", README) for extra in found.split(",")}
    assert named == set(project["optional-dependencies"])
