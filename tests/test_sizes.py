"""Sizes follow from use: their letters, their numbers, and what cannot agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from own_cells import OWN_CELLS
from random_cells import random_cells

from unrolled import Cell, EquationError, SizeError, cells

LSTM_BLOCKS = {
    **{f"W.{gate}": ("H", "I") for gate in "ifgo"},
    **{f"U.{gate}": ("H", "H") for gate in "ifgo"},
    **{f"b.{gate}": ("H",) for gate in "ifgo"},
}


def test_the_lstm_has_the_sizes_of_its_papers():
    assert cells.lstm.sizes.shapes == LSTM_BLOCKS
    values = dict(cells.lstm.sizes.values)
    assert values.pop("x") == "I"
    assert values == dict.fromkeys(["h_prev", "c_prev", *"ifgoch"], "H")
    assert cells.lstm.sizes.letters == ("I", "H")


def test_peepholes_are_vectors():
    diagonals = {f"P.{gate}": ("H",) for gate in "ifo"}
    assert cells.peephole_lstm.sizes.shapes == LSTM_BLOCKS | diagonals
    assert cells.peephole_lstm.equations.kinds["P"] == "diagonal"


def test_a_projection_has_two_hidden_sizes():
    sizes = cells.projected_lstm.sizes
    assert sizes.values["c"] == sizes.values["i"] == sizes.values["c_prev"] == "H_c"
    assert sizes.values["h"] == sizes.values["h_prev"] == "H_h"
    assert sizes.shapes["W.i"] == ("H_c", "I")
    assert sizes.shapes["U.i"] == ("H_c", "H_h")
    assert sizes.shapes["V.h"] == ("H_h", "H_c")


@pytest.mark.parametrize("name", ["gru", "gru_original", "gru_simplified", "coupled_lstm"])
def test_gates_have_the_size_of_the_state(name):
    cell = cells.catalogue()[name]
    for block, shape in cell.sizes.shapes.items():
        expected = {"W": ("H", "I"), "U": ("H", "H")}.get(block.split(".")[0], ("H",))
        assert shape == expected, block


def test_a_number_has_no_size():
    sizes = OWN_CELLS["clock"].sizes
    assert sizes.values["phase"] == sizes.values["k"] == "1"
    assert sizes.values["h"] == "H"


def test_a_size_that_only_parameters_have_gets_a_letter():
    cell = Cell.parse("def toy(x, *, W, V):\n    h = V.h @ tanh(W.k @ x)\n    return h")
    (rows, columns) = cell.sizes.shapes["V.h"]
    assert (rows, cell.sizes.shapes["W.k"]) == ("H", (columns, "I"))
    assert columns not in ("H", "I")
    assert cell.bind(3, 5) == {"I": 3, "H": 5, columns: 5}


def test_two_sizes_never_have_one_letter():
    cell = Cell.parse(
        "def toy(x, *, W, V, Q):\n    W_k = Q.j @ x\n    h = V.h @ tanh(W.k @ x) + Q.h @ x\n"
        "    return h"
    )
    assert cell.sizes.values["W_k"] != cell.sizes.shapes["W.k"][0]


@pytest.mark.parametrize("cell", [*cells.catalogue().values(), *OWN_CELLS.values()], ids=repr)
def test_parameters_are_drawn_in_their_sizes(cell):
    sizes = cell.bind(7, 7)
    assert set(sizes) == set(cell.sizes.letters)
    assert set(sizes.values()) == {7}
    params = cell.init(7, 7, rng=0)
    assert {name: array.shape for name, array in params.items()} == {
        name: (7,) * len(shape) for name, shape in cell.sizes.shapes.items()
    }


# bind


def test_bind_with_one_number():
    assert cells.lstm.bind(3, 5) == {"I": 3, "H": 5}
    assert cells.projected_lstm.bind(3, 5) == {"I": 3, "H_h": 5, "H_c": 5}
    assert cells.lstm.bind(3, np.int64(5)) == {"I": 3, "H": 5}


@pytest.mark.parametrize("named", [{"h": 2, "c": 5}, {"h_prev": 2, "i": 5}, {"c": 5, "h": 2}])
def test_bind_with_a_number_for_each_size(named):
    assert cells.projected_lstm.bind(3, named) == {"I": 3, "H_h": 2, "H_c": 5}
    shapes = {name: a.shape for name, a in cells.projected_lstm.init(3, named, rng=0).items()}
    assert shapes["V.h"] == (2, 5)
    assert shapes["U.f"] == (5, 2)
    assert shapes["W.f"] == (5, 3)


def test_bind_takes_two_names_of_one_size():
    assert cells.lstm.bind(3, {"h": 4, "c": 4}) == {"I": 3, "H": 4}


@given(random_cells())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_cell_runs_in_the_sizes_that_are_found(cell):
    free = [name for name in cell.sizes.values if cell.sizes.values[name].startswith("H")]
    numbers = {size: 2 + at for at, size in enumerate(cell.sizes.letters)}
    params = cell.init(
        numbers["I"], {name: numbers[cell.sizes.values[name]] for name in free}, rng=0
    )
    x = np.random.default_rng(1).normal(size=(4, 2, numbers["I"]))
    for name, value in cell.trace(x, params).items():
        assert value.shape == (4, 2, numbers[cell.sizes.values[name.removesuffix("_prev")]]), name
        assert np.all(np.isfinite(value))


# What cannot agree. The place that the message must point at stands in «…».

PRODUCT = "Bring one to the size of the other with a product, such as W.i @ x."

DISAGREE = {
    "unit by unit": (
        "def toy(x, h_prev):\n    h = x * «h_prev»\n    return h",
        "two sizes cannot agree: 3, the size of x, and 5, the size of h. "
        f"x and h_prev meet unit by unit, so they have one size. {PRODUCT}",
    ),
    "one family on two vectors": (
        "def toy(x, h_prev, *, W):\n    h = tanh(W.x @ x + W.h @ «h_prev»)\n    return h",
        "two sizes cannot agree: 3, the size of x, and 5, the size of h. "
        "The blocks of W are applied to vectors of one size. Give W.h a family of its own.",
    ),
    "a chain of other names": (
        "def toy(x, h_prev, *, W):\n    a = 2 * x\n    h = W.h @ x + h_prev\n"
        "    b = sigmoid(a)\n    c = b - «h»\n    return h, c",
        "two sizes cannot agree: 3, the size of x, and 5, the size of h. "
        f"b and h meet unit by unit, so they have one size. {PRODUCT}",
    ),
    "inside a function": (
        "def toy(x, h_prev, *, W):\n    h = W.h @ x + maximum(x, «2 * h_prev»)\n    return h",
        "two sizes cannot agree: 3, the size of x, and 5, the size of h. "
        f"x and 2 * h_prev meet unit by unit, so they have one size. {PRODUCT}",
    ),
    "a state that is a name for the input": (
        "def toy(x):\n    h = «x»\n    return h",
        "two sizes cannot agree: 5, the size of h, and 3, the size of x. "
        "h has one size wherever it is used, and its value of the step before has the same.",
    ),
}


@pytest.mark.parametrize(("marked", "problem"), DISAGREE.values(), ids=DISAGREE)
def test_two_sizes_that_cannot_agree(marked, problem):
    cell = Cell.parse(marked.replace("«", "").replace("»", ""))
    lines = marked.split("\n")
    (at,) = [number for number, line in enumerate(lines) if "«" in line]
    line = lines[at].strip()
    start, end = line.index("«"), line.index("»") - 1
    carets = " " * start + "^" * (end - start)
    shown = line.replace("«", "").replace("»", "")
    with pytest.raises(SizeError) as error:
        cell.bind(3, 5)
    assert str(error.value) == f"cell 'toy', line {at + 1}:\n    {shown}\n    {carets}\n{problem}"
    assert set(cell.bind(4, 4).values()) == {4}


def test_two_numbers_for_one_size():
    with pytest.raises(SizeError) as error:
        cells.lstm.bind(3, {"h": 4, "c": 6})
    assert "two sizes cannot agree" in str(error.value)
    assert "4, the size of h" in str(error.value)
    assert "6, the size of c" in str(error.value)
    assert "^" in str(error.value)


NEVER_VECTORS = {
    "a state that is a number": (
        "def toy(x):\n    h = exp(-t)\n    return h",
        "cell 'toy', line 2:\n    h = exp(-t)\n        ^^^^^^^\n"
        "h is one number for all units, and a state is a vector. "
        "Combine it with one, such as x or h_prev.",
    ),
    "a product with a number": (
        "def toy(x, *, W):\n    k = 2 * t\n    h = x + W.h @ k\n    return h",
        "cell 'toy', line 3:\n    h = x + W.h @ k\n                  ^\n"
        "k is one number, and a product takes a vector. "
        "Multiply it unit by unit with a block of a family of vectors, such as b.h * k.",
    ),
}


@pytest.mark.parametrize(("text", "message"), NEVER_VECTORS.values(), ids=NEVER_VECTORS)
def test_a_number_where_a_vector_belongs(text, message):
    with pytest.raises(SizeError) as error:
        Cell.parse(text)
    assert str(error.value) == message


BOTTLENECK = "def toy(x, h_prev, *, W, V):\n    h = V.h @ tanh(W.k @ x) + h_prev\n    return h"

BIND_ERRORS = {
    "a name that is none": (
        cells.projected_lstm,
        (3, {"h": 2, "hidden": 5}),
        "cell 'projected_lstm': hidden_size names hidden, which is no vector of this cell. "
        "It chooses the sizes of h, c.",
    ),
    "a number's name": (
        OWN_CELLS["clock"],
        (3, {"h": 2, "phase": 5}),
        "cell 'clock': hidden_size names phase, which is no vector of this cell. "
        "It chooses the sizes of h.",
    ),
    "the input's name": (
        cells.lstm,
        (3, {"h": 2, "x": 5}),
        "cell 'lstm': hidden_size names x, the input; its size is the input size.",
    ),
    "a size left open": (
        cells.projected_lstm,
        (3, {"h": 2}),
        'cell \'projected_lstm\': hidden_size leaves the size of c open: write {"h": …, "c": …}.',
    ),
    "a size left open that has no name": (
        Cell.parse(BOTTLENECK),
        (3, {"h": 2}),
        "cell 'toy': hidden_size leaves a size of W.k open, and no name has that size. "
        "Give what W.k makes a name in an equation of its own.",
    ),
    "no hidden unit": (
        cells.lstm,
        (3, 0),
        "cell 'lstm': the size of h is 0; a size is a whole number from 1 on.",
    ),
    "a named size below 1": (
        cells.projected_lstm,
        (3, {"h": 2, "c": -1}),
        "cell 'projected_lstm': the size of c is -1; a size is a whole number from 1 on.",
    ),
    "no input": (
        cells.lstm,
        (0, 3),
        "cell 'lstm': the size of x is 0; a size is a whole number from 1 on.",
    ),
    "half a unit": (
        cells.lstm,
        (3, 2.5),
        "cell 'lstm': the size of h is 2.5; a size is a whole number from 1 on.",
    ),
}


@pytest.mark.parametrize(("cell", "sizes", "message"), BIND_ERRORS.values(), ids=BIND_ERRORS)
def test_sizes_that_cannot_be_bound(cell, sizes, message):
    with pytest.raises(EquationError) as error:
        cell.bind(*sizes)
    assert str(error.value) == message
