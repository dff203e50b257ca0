"""A cell of one's own: write equations, and everything else follows."""

from typing import Any

import marimo as mo
import numpy as np

from unrolled import Cell, UnrolledError, cells, lab

from ..page import Controls, Riddle, plain, typeset

TEXT = """\
def mine(x, h_prev, *, W, U, b):
    z = sigmoid(W.z @ x + U.z @ h_prev + b.z)
    h = (1 - z) * tanh(W.h @ x + b.h) + z * h_prev
    return h
"""
INPUTS, UNITS = 3, 4

RIDDLE = Riddle(
    f"The cell that stands here at first reads {INPUTS} numbers and has {UNITS} units. How many "
    "parameters are that?",
    float(sum(block.size for block in Cell.parse(TEXT).init(INPUTS, UNITS, 0).values())),
)


def controls() -> mo.ui.dictionary:
    """The editor."""
    return mo.ui.dictionary(
        {
            "text": mo.ui.code_editor(TEXT, language="python", debounce=400),
            "guess": RIDDLE.guess(),
        }
    )


def consequences(cell: Cell) -> list[Any]:
    """What follows from the equations of a cell."""
    network = lab.Network.init(cell, INPUTS, UNITS, rng=0)
    trace = network.trace(np.random.default_rng(0).standard_normal((20, INPUTS)))
    with mo.capture_stdout():  # it prints, too
        checked = lab.gradient_check(cell)
    return [
        typeset(cell),
        lab.cell_graph(cell, name="own"),
        mo.md("Every gradient, derived, and compared with differences of the loss:"),
        plain(checked),
        lab.gates(trace),
        lab.memory({"simple": cells.simple, cell.name: cell}, radius=1, length=40, draws=3),
    ]


def view(controls: Controls) -> mo.Html:
    """The equations, and what follows from them or what is wrong with them."""
    try:
        shown: list[Any] = consequences(Cell.parse(controls["text"].value))
    except UnrolledError as error:
        shown = [plain(error, color="#cf222e")]
    return mo.vstack(
        [
            mo.md(
                r"""
                # Your own cell

                A cell is its equations, one line each. `W.z @ x` is a product with a matrix,
                `b.z` a bias, `P.z * h_prev` a diagonal; `h_prev` is the value of `h` a step ago.
                Functions are `sigmoid`, `tanh`, `relu`, `softplus`, `exp`, `log`, `sqrt`, `abs`,
                `maximum`, `minimum` and `where`. What the cell returns first is its output.
                The text is read and never run.
                """
            ),
            controls["text"],
            *shown,
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Give the gate of the state another one: let it see `P.z * h_prev`. Or "
                        "write a cell that counts: one that adds `W.h @ x` to its state, and does "
                        "nothing else. What does its picture of memory look like?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "from unrolled import Cell\n\n"
                        "mine = Cell.parse(text)\n"
                        "print(mine.backward)          # one step of BPTT\n"
                        "lab.gradient_check(mine)\n"
                        "```\n"
                        "The same cell becomes a layer for torch with "
                        "`unrolled.nn.Recurrent(mine, input_size, hidden_size)`, with kernels of "
                        "its own."
                    ),
                }
            ),
        ]
    )
