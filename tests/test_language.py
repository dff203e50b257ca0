"""The language of equations: what is read from a text, and where a text may stand."""

import linecache
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from own_cells import OWN_CELLS
from random_cells import random_cells

import unrolled
from unrolled import Cell, EquationError, cells
from unrolled.functions import sigmoid, tanh


@pytest.mark.parametrize("cell", [*cells.catalogue().values(), *OWN_CELLS.values()], ids=repr)
def test_the_text_of_a_cell_is_the_cell(cell):
    again = Cell.parse(cell.text)
    assert again == cell
    assert hash(again) == hash(cell)
    assert again.text == cell.text


@given(random_cells())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_text_of_any_cell_is_the_cell(cell):
    assert Cell.parse(cell.text) == cell
    assert Cell.parse(textwrap.indent(cell.text, "\t")) == cell


def test_the_text_is_beautiful():
    text = '''\
def leaky(x, h_prev, *, W, U, b, dt=0.1, slope=-2.5):
    """A leaky unit.

    A second paragraph, with
        a line that stands apart.
    """
    a = W.a @ x + U.a @ h_prev + b.a
    h = (1 - dt) * h_prev + dt * tanh(slope * a)
    return h
'''
    assert Cell.parse(text).text == text
    assert not any(line != line.rstrip() for line in text.split("\n"))


@pytest.mark.parametrize(
    "right",
    [
        "-x ** 2",
        "(-x) ** 2",
        "2 ** -x",
        "x ** h_prev ** 2",
        "(x ** h_prev) ** 2",
        "x - (h_prev - 1)",
        "x - h_prev - 1",
        "x / (h_prev / 2)",
        "x * (1 + h_prev) / 2",
        "-(x * h_prev)",
        "--x",
        "W.i @ (x * h_prev) * 2",
        "2 * (W.i @ x)",
        "-(W.i @ x)",
        "W.i @ (U.i @ x)",
        "where(x + 1 >= h_prev, x, 1e-30)",
        "1e+300 * x + 1000000 * t + 0.1",
    ],
)
def test_brackets_stand_where_they_are_needed_and_nowhere_else(right):
    rest = "k = W.k @ x + U.k @ x"
    text = f"def toy(x, h_prev, *, W, U):\n    h = {right}\n    {rest}\n    return h\n"
    assert Cell.parse(text).text == text


@pytest.mark.parametrize(
    "doc",
    [
        "He said so.",
        'He said "so"',
        '"So", he said.',
        'Three """ of them',
        '""" of them\n\nand """',
        "A formula: \\sigma(x) \\",
        "Lines\n\nand a backslash \\",
        "Letters: Γ 中 \x00 \x1b \r \u2028 .",
        "Γ_u, i.e.\n  • one\nand\n  • two",
    ],
)
def test_any_docstring_is_read_back(doc):
    text = f"def toy(x):\n    {doc!r}\n    h = x\n    return h"
    cell = Cell.parse(text)
    assert cell.equations.doc == doc
    assert Cell.parse(cell.text) == cell


def test_order_of_equations_is_free():
    straight = Cell.parse("def toy(x):\n    a = x * 2\n    b = a + x\n    h = b\n    return h")
    turned = Cell.parse("def toy(x):\n    h = b\n    b = a + x\n    a = x * 2\n    return h")
    assert straight.equations.equations == turned.equations.equations
    assert [str(equation) for equation in turned.equations.equations] == [
        "a = x * 2",
        "b = a + x",
        "h = b",
    ]
    assert turned.text.index("h = b") < turned.text.index("a = x * 2")


def test_blocks_stand_in_order_of_first_appearance():
    cell = Cell.parse(
        "def toy(x, h_prev, *, W, b, P):\n    h = z + W.n @ x + b.z\n"
        "    z = W.z @ x + W.n @ x + h_prev * P.z - P.o * x\n    return h"
    )
    assert cell.blocks == {"W": ("n", "z"), "b": ("z",), "P": ("z", "o")}
    assert cell.equations.kinds == {"W": "matrix", "b": "vector", "P": "diagonal"}


# Where equations may stand.


@unrolled.cell
def outermost(x, h_prev, *, W):
    """Read through the module's own name."""
    h = tanh(W.h @ x) * h_prev
    return h


class Holder:
    @unrolled.cell
    def held(x, h_prev, *, W):  # noqa: N805
        """Read inside a class,
            where lines of the docstring
        may stand further left.
        """
        h = sigmoid(W.h @ x) * h_prev
        return h


def test_the_decorator_reads_functions_wherever_they_stand():
    from unrolled import cell

    if True:

        @cell
        def inner(x, h_prev, *, W):
            # a comment further in
            h = tanh(W.h @ x) * h_prev  # and behind
            return h

    assert inner.name == "inner"
    assert inner.equations.equations == outermost.equations.equations
    assert Holder.held.states == ("h",)
    assert Holder.held.equations.doc.endswith("further left.")


def test_nothing_is_ever_run(capsys):
    for line in ("print('ran')", "h = print('ran')", "h = ran()", "h = ran().y", "h = x[ran()]"):
        with pytest.raises(EquationError):
            Cell.parse(f"def toy(x):\n    {line}\n    return h")
    with pytest.raises(EquationError):
        Cell.parse("@print('ran')\ndef toy(x):\n    h = x\n    return h")
    with pytest.raises(EquationError):
        Cell.parse("def toy(x, *, dt=print('ran')):\n    h = x * dt\n    return h")
    assert capsys.readouterr().out == ""


def test_the_decorator_explains_a_function_without_source():
    namespace = {"cell": unrolled.cell}
    with pytest.raises(EquationError) as error:
        exec("@cell\ndef toy(x):\n    h = x\n    return h", namespace)
    assert str(error.value) == (
        "Python kept no source of 'toy', so its equations cannot be read (its plain prompt and "
        "exec keep none). Write them in a file or a notebook, or as text: "
        'Cell.parse("""def …""").'
    )


def test_the_decorator_reads_the_cells_of_a_notebook():
    # As IPython does: the source of each input is put into the cache of lines.
    text = "from unrolled import cell\n\n@cell\ndef noted(x):\n    h = 2 * x\n    return h\n"
    name = "<ipython-input-1-0123456789ab>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace = {}
    try:
        exec(compile(text, name, "exec"), namespace)
    finally:
        del linecache.cache[name]
    assert namespace["noted"].text == "def noted(x):\n    h = 2 * x\n    return h\n"


def test_what_is_read_is_what_is_computed():
    cell = Cell.parse(
        "def toy(x, h_prev, *, W, b, dt=0.5):\n"
        "    m = x_in > h_prev\n"
        "    x_in = W.h @ x + b.h\n"
        "    h = where(m, x_in, dt * h_prev) ** 2 / -t + maximum(x_in, 0.25)\n"
        "    return h\n"
    )
    params = {"W.h": np.array([[2.0, 0.5]]), "b.h": np.array([-1.0])}
    x = np.array([[1.0, 1.0], [0.0, 0.0]])
    y, _ = cell.run(x, params)
    np.testing.assert_allclose(y[:, 0], [1.5 - 1.5**2, 0.25 - 0.375**2 / 2])
