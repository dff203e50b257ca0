"""One cell forward: a weighted sum, and a curve that bends it."""

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab

from ..page import Controls, Riddle, explained, row, slider, typeset


def step(x: float, h_prev: float, w: float, u: float, b: float) -> lab.Trace:
    """One step of the simple cell with one input and one unit."""
    params = {"W.h": np.array([[w]]), "U.h": np.array([[u]]), "b.h": np.array([b])}
    network = lab.Network(cells.simple, ((params,),))
    return network.trace(np.full((1, 1, 1), x), np.full((1, 1, 1), h_prev))


RIDDLE = Riddle(
    "With $W = 1$, $U = 0.5$ and $b = 0$ the cell reads $x_1 = 1$ and begins at $h_0 = -1$. "
    "What is $h_1$?",
    float(step(1.0, -1.0, 1.0, 0.5, 0.0).y[0, 0, 0]),
)


def controls() -> mo.ui.dictionary:
    """A slider for each of the five numbers."""
    return mo.ui.dictionary(
        {
            "x": slider(-2, 2, 0.1, 1, "$x_1$"),
            "h_prev": slider(-1, 1, 0.1, 0.5, "$h_0$"),
            "W": slider(-2, 2, 0.1, 0.8, "$W$"),
            "U": slider(-2, 2, 0.1, 0.6, "$U$"),
            "b": slider(-2, 2, 0.1, 0, "$b$"),
            "guess": RIDDLE.guess(),
        }
    )


def curve(before: float, after: float) -> Figure:
    """The curve of tanh, and the point on it at which the cell stands."""
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    ax = figure.subplots()
    along = np.linspace(-4, 4, 201)
    ax.plot(along, np.tanh(along), color="0.6")
    ax.plot([before, before, -4], [-1, after, after], ":", color="tab:blue", linewidth=1)
    ax.plot([before], [after], "o", color="tab:blue")
    ax.set(xlim=(-4, 4), ylim=(-1.1, 1.1), ylabel="$h_1$")
    ax.set_xlabel("the sum before the tanh")
    return figure


def view(controls: Controls) -> mo.Html:
    """The cell, its curve, and the equation with the numbers filled in."""
    now = controls.value
    x, h_prev, w, u, b = (now[name] for name in ("x", "h_prev", "W", "U", "b"))
    trace = step(x, h_prev, w, u, b)
    number = lab.at(trace, "h_1<1>")
    return mo.vstack(
        [
            mo.md(
                r"""
                # One cell forward

                A recurrent cell reads two things: the input of this step, and what it said itself
                a step ago. It weighs both, adds a bias, and bends the sum so that it stays between
                −1 and 1. That number is its hidden state: its output now, its memory next.
                """
            ),
            typeset(cells.simple),
            lab.cell_graph(cells.simple, name="one"),
            mo.md("One input, one unit, one step. Every number of it is yours to move:"),
            row(controls[name] for name in ("x", "h_prev", "W", "U", "b")),
            curve(w * x + u * h_prev + b, float(number)),
            explained(number),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Set $W$ and $b$ to 0. What must $U$ be for the cell to say again what it "
                        "said before? Can any $U$ do that for every $h_0$?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "from unrolled import cells, lab\n\n"
                        "network = lab.Network.init(cells.simple, input_size=1, hidden_size=1)\n"
                        "trace = network.trace([[1.0]])\n"
                        'lab.at(trace, "h_1<1>").explain()\n'
                        "```\n"
                        "The course's function for the same step, columns being examples, is "
                        "`lab.rnn_cell_forward(xt, a_prev, parameters)`."
                    ),
                }
            ),
        ]
    )
