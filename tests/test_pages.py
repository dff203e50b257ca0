"""The README and its pages say what is true: their code runs, their links lead on."""

import re
from pathlib import Path

import pytest

import unrolled
from unrolled import cells
from unrolled.cli.show import _kernels

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(page):
    """(language, text) of each block of code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)


def run(page, folder):
    """Run a page's blocks of Python one after the other; gives what they define."""
    # From a file, because equations are read from their source.
    code = "\n".join(text for language, text in blocks(page) if language == "python")
    path = folder / "page.py"
    path.write_text(code, encoding="utf-8")
    namespace = {"__name__": "page"}
    exec(compile(code, str(path), "exec"), namespace)
    return namespace


def test_the_code_of_the_readme_runs(tmp_path, capsys):
    assert run("README.md", tmp_path)["gates"].shape == (100, 4, 32)
    assert "dh_prev" in capsys.readouterr().out


@pytest.mark.slow
def test_the_code_of_the_lab_s_page_prints_what_the_page_shows(tmp_path, capsys):
    run("docs/lab.md", tmp_path)
    printed = capsys.readouterr().out
    shown = [text for language, text in blocks("docs/lab.md") if language == "text"]
    assert len(shown) == 3
    for text in shown:
        assert text in printed


def test_the_error_is_the_error_that_a_newcomer_sees():
    shown = next(text for _, text in blocks("README.md") if text.startswith("cell 'minimal'"))
    with pytest.raises(unrolled.EquationError) as error:
        unrolled.Cell.parse(
            "@cell\n"
            "def minimal(x, h_prev, *, W, U, b):\n"
            "    z = sigmoid(W.z @ x + U.z @ h_prv + b.z)\n"
            "    h = z * h_prev\n"
            "    return h\n"
        )
    assert str(error.value) == shown.strip()


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_are_there(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_picture_is_shown():
    shown = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for path in (ROOT / "docs" / "images").iterdir():
        assert f"images/{path.name})" in shown, path.name


def test_the_extras_that_it_names_are_there():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for found in re.findall(r"\.\[([\w,]+)\]", README) for extra in found.split(",")}
    assert named == set(project["optional-dependencies"])


def unindented(text):
    return "\n".join(line.strip() for line in text.splitlines())


def test_the_tour_of_the_kernel_quotes_the_kernel():
    """What `unrolled show lstm --kernel cpu` prints, line by line as the page shows it."""
    shown = dict(zip(("inference", "training", "backward"), _kernels(cells.lstm), strict=True))
    page = (ROOT / "docs" / "kernel.md").read_text(encoding="utf-8")
    quoted = re.findall(r"<!-- (\w+) -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert len(quoted) == len(re.findall(r"```\w+\n", page))
    for kernel, text in quoted:
        assert unindented(text) in unindented(shown[kernel][1])
    assert "kept" not in shown["inference"][1]  # as the page says
