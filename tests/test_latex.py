"""The equations as LaTeX."""

import pytest

from unrolled import Cell, cells
from unrolled.language.operations import OPERATIONS
from unrolled.views.latex import TYPESET, latex


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
    assert TYPESET.keys() == OPERATIONS.keys() - {"same", "matmul_t"}


@pytest.mark.parametrize("cell", cells.catalogue().values(), ids=lambda cell: cell.name)
def test_braces_balance_and_every_equation_has_a_line(cell):
    text = latex(cell.equations)
    assert text.count("{") == text.count("}")
    assert text.count("&=") == len(cell.equations.equations)
