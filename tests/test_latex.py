"""The equations as LaTeX."""

import re

import pytest
from own_cells import OWN_CELLS

from unrolled import Cell, InputError, cells, differentiate
from unrolled.language.operations import OPERATIONS
from unrolled.listing import equations
from unrolled.views.latex import COURSE, FIELD, TYPESET, Notation, latex

CELLS = {**cells.catalogue(), **OWN_CELLS}


def test_the_lstm_as_the_field_writes_it():
    assert (
        latex(cells.lstm.equations)
        == r"""\begin{aligned}
    i_{t} &= \sigma(W_{i} x_{t} + U_{i} h_{t-1} + b_{i}) \\
    f_{t} &= \sigma(W_{f} x_{t} + U_{f} h_{t-1} + b_{f}) \\
    g_{t} &= \tanh(W_{g} x_{t} + U_{g} h_{t-1} + b_{g}) \\
    o_{t} &= \sigma(W_{o} x_{t} + U_{o} h_{t-1} + b_{o}) \\
    c_{t} &= f_{t} \odot c_{t-1} + i_{t} \odot g_{t} \\
    h_{t} &= o_{t} \odot \tanh(c_{t})
\end{aligned}"""
    )


@pytest.mark.parametrize(
    ("equation", "typeset"),
    [
        ("h = (1 - a) * b", r"(1 - a_{t}) \odot b_{t}"),
        ("h = 2 * a", r"2 \, a_{t}"),
        ("h = dt * a", r"\mathrm{dt} \, a_{t}"),
        ("h = a / (a + b)", r"\frac{a_{t}}{a_{t} + b_{t}}"),
        ("h = (a + b) ** 2", "{(a_{t} + b_{t})}^{2}"),
        ("h = -(a + b)", "-(a_{t} + b_{t})"),
        ("h = a - (b - a)", "a_{t} - (b_{t} - a_{t})"),
        ("h = a - b + a", "a_{t} - b_{t} + a_{t}"),
        ("h = where(a > 0, a, -b)", r"\begin{cases} a_{t} & \text{if } a_{t} > 0 \\ "
         r"-b_{t} & \text{otherwise} \end{cases}"),
        ("h = sqrt(abs(a))", r"\sqrt{\lvert a_{t} \rvert}"),
        ("h = maximum(a, b) * t", r"\max(a_{t}, b_{t}) \, t"),
        ("h = W.h @ (a * b)", r"W_{h} (a_{t} \odot b_{t})"),
        ("h = V_in.alpha @ a", r"V^{\mathrm{in}}_{\alpha} a_{t}"),
    ],
)  # fmt: skip
def test_brackets_and_signs(equation, typeset):
    families = "".join(f", {name}" for name in ("W", "V_in") if f"{name}." in equation)
    text = (
        f"def one(x, h_prev, *{families}, P, dt=0.1):\n"
        f"    a = P.a * x\n    b = x + dt * h_prev\n    {equation}\n    return h\n"
    )
    assert latex(Cell.parse(text).equations).split("\n")[3].strip() == f"h_{{t}} &= {typeset}"


def test_every_operation_of_the_language_is_typeset():
    assert TYPESET.keys() == OPERATIONS.keys() - {"same"}


@pytest.mark.parametrize("cell", cells.catalogue().values(), ids=lambda cell: cell.name)
def test_braces_balance_and_every_equation_has_a_line(cell):
    text = latex(cell.equations)
    assert text.count("{") == text.count("}")
    assert text.count("&=") == len(cell.equations.equations)


def lines_of(text):
    first, *lines, last = text.split("\n")
    assert (first, last) == (r"\begin{aligned}", r"\end{aligned}")
    return [line.strip().removesuffix(r" \\") for line in lines]


def test_the_step_of_backpropagation_as_the_field_writes_it():
    assert lines_of(latex(cells.simple.backward)) == [
        r"\mathrm{d}h_{t} &= \mathrm{d}h^{\mathrm{next}}_{t} + \mathrm{d}h^{\mathrm{out}}_{t}",
        r"\mathrm{d}h^{\mathrm{pre}}_{t} &= \mathrm{d}h_{t} \odot (1 - h_{t} \odot h_{t})",
        r"\mathrm{d}h^{\mathrm{next}}_{t-1} &= U_{h}^{\top} \mathrm{d}h^{\mathrm{pre}}_{t}",
        r"\mathrm{d}x_{t} &= W_{h}^{\top} \mathrm{d}h^{\mathrm{pre}}_{t}",
        r"\mathrm{d}W_{h} &= \sum_{t} \mathrm{d}h^{\mathrm{pre}}_{t} x_{t}^{\top}",
        r"\mathrm{d}U_{h} &= \sum_{t} \mathrm{d}h^{\mathrm{pre}}_{t} h_{t-1}^{\top}",
        r"\mathrm{d}b_{h} &= \sum_{t} \mathrm{d}h^{\mathrm{pre}}_{t}",
    ]


def test_several_sums_of_one_parameter_are_one_line():
    (line,) = (line for line in lines_of(latex(OWN_CELLS["again"].backward)) if "P_{k} &=" in line)
    assert line.startswith(r"\mathrm{d}P_{k} &= \sum_{t} \left(")
    assert line.count(" + ") == 1


@pytest.mark.parametrize("cell", cells.catalogue().values(), ids=lambda cell: cell.name)
def test_a_forward_program_is_typeset_as_its_equations(cell):
    assert sorted(lines_of(latex(cell.forward))) == sorted(lines_of(latex(cell.equations)))


def test_what_the_adjoint_keeps_is_written_out_if_its_forward_program_is_given():
    assert r"u^{\#15}_{t}" in latex(cells.lstm.backward)
    with_forward = latex(cells.lstm.backward, forward=cells.lstm.forward)
    assert r"\mathrm{d}o_{t} &= \mathrm{d}h_{t} \odot \tanh(c_{t})" in with_forward
    assert r"\#" not in with_forward
    told = lines_of(latex(cells.gru.backward, forward=cells.gru.forward))
    assert told[0] == r"u^{\#10}_{t} &= U_{n} h_{t-1} + b^{U}_{n}"
    assert r"\mathrm{d}n_{t} &= \mathrm{d}h_{t} \odot (1 - z_{t})" in told


@pytest.mark.parametrize("notation", [FIELD, COURSE], ids=["field", "course"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_every_program_is_typeset_and_uses_no_name_that_is_not_told(cell, notation):
    programs = [
        (cell.forward, None),
        (cell.backward, None),
        (cell.backward, cell.forward),
        (differentiate(cell.forward, recompute=True), None),
        (differentiate(cell.program, traced=cell.names), cell.program),
    ]
    for program, forward in programs:
        text = latex(program, notation, forward)
        assert text.count("{") == text.count("}")
        assert "_{}" not in text
        assert "^{}" not in text
        lines = lines_of(text)
        totals = {total.parameter for total in program.totals}
        assert len([line for line in lines if r"\sum" in line]) == len(totals)
        if forward is None:
            assert len(lines) == len(list(equations(program))) + len(totals)
            continue
        told = [line.split(" &= ")[0] for line in lines]
        for number in re.findall(r"u\^\{\\#(\d+)", text):
            assert any(rf"\#{number}" in left and r"d" not in left for left in told), number


def test_the_notation_of_the_course():
    assert lines_of(latex(cells.lstm.equations, notation=COURSE))[0] == (
        r"\Gamma_i^{\langle t\rangle} &= \sigma(W_{ix} x^{\langle t\rangle} + "
        r"W_{ia} a^{\langle t-1\rangle} + b_{i})"
    )
    assert lines_of(latex(cells.simple.equations, COURSE)) == [
        r"a^{\langle t\rangle} &= \tanh(W_{ax} x^{\langle t\rangle} + "
        r"W_{aa} a^{\langle t-1\rangle} + b_{a})"
    ]
    assert (
        r"(1 - \overline{\Gamma}_u^{\langle t\rangle}) \odot \tilde{c}^{\langle t\rangle}"
        in latex(cells.gru.equations, COURSE)
    )
    assert (
        r"dW_{aa} &= \sum_{t} da^{\mathrm{pre}\langle t\rangle} {a^{\langle t-1\rangle}}^{\top}"
        in (latex(cells.simple.backward, COURSE))
    )


def test_a_notation_of_ones_own():
    mine = Notation(symbols={"h": "s"}, families={"U": "R"}, gradient=r"\partial {0}")
    assert lines_of(latex(cells.simple.equations, mine)) == [
        r"s_{t} &= \tanh(W_{h} x_{t} + R s_{t-1} + b_{h})"
    ]
    assert r"\partial x_{t} &= W_{h}^{\top} \partial s^{\mathrm{pre}}_{t}" in (
        latex(cells.simple.backward, mine)
    )


@pytest.mark.parametrize(
    ("number", "typeset"),
    [("0.5", "0.5"), ("2e-07", r"2 \cdot 10^{-7}"), ("1e+20", r"1 \cdot 10^{20}")],
)
def test_numbers_are_typeset(number, typeset):
    text = f"def one(x, h_prev, *, W):\n    h = W.h @ x + {number}\n    return h\n"
    assert lines_of(latex(Cell.parse(text).equations))[0].endswith(f"+ {typeset}")


def test_what_has_no_formula_gets_a_sentence():
    with pytest.raises(InputError, match=r"cell\.forward or cell\.backward; found Cell"):
        latex(cells.lstm)
