"""The LSTM: a second state, which nothing but gates can touch."""

from typing import Any

import marimo as mo
import numpy as np

from unrolled import cells, lab

from ..page import Controls, Riddle, explained, row, slider, typeset

STEPS, PUSH = 24, 3

RIDDLE = Riddle(
    "A forget gate has the bias 1, and its other terms are 0: $f = \\sigma(1)$ at every step. The "
    "input gate is shut. Of $c_0 = 1$, what is left in $c_{10}$?",
    float((1 / (1 + np.exp(-1))) ** 10),
)


def run(bias: float, push: float) -> lab.Trace:
    """Six units read one push among zeros; the bias of the forget gate is given."""
    network = lab.Network.init(cells.lstm, 1, 6, rng=2)
    network.params[0][0]["b.f"][:] = bias
    x = np.zeros((STEPS, 1))
    x[PUSH - 1] = push
    return network.trace(x)


def controls() -> mo.ui.dictionary:
    """The bias of the forget gate, and how strong the push is."""
    return mo.ui.dictionary(
        {
            "bias": slider(-3, 6, 0.5, 1, "bias of the forget gate $b_f$"),
            "push": slider(-4, 4, 0.5, 3, f"input at step {PUSH}"),
            "guess": RIDDLE.guess(),
        }
    )


def view(controls: Controls) -> mo.Html:
    """Gates over time, and what the cell remembers with such a forget gate."""
    now = controls.value
    bias = now["bias"]
    trace = run(bias, now["push"])
    number = lab.at(trace, f"c_1<{PUSH}>")
    subjects: dict[str, Any] = {
        "simple": cells.simple,
        "LSTM": cells.lstm,
        f"LSTM, $b_f$ = {bias:g}": (cells.lstm, {"b.f": bias}),
    }
    return mo.vstack(
        [
            mo.md(
                r"""
                # LSTM

                Two states: $h$, which the world sees, and $c$, the cell state, a conveyor belt
                (Hochreiter & Schmidhuber 1997). No matrix touches $c$ from step to step. The
                *forget* gate $f$ multiplies it, the *input* gate $i$ lets the candidate $g$ on,
                the *output* gate $o$ decides how much of it shows. Where $f$ is 1, the gradient of
                $c$ goes back unchanged.
                """
            ),
            typeset(cells.lstm),
            lab.cell_graph(cells.lstm, name="lstm"),
            mo.md(f"Six units read zeros, and one push at step {PUSH}:"),
            row([controls["bias"], controls["push"]]),
            lab.gates(trace),
            mo.md(f"The first unit's cell state when the push comes, ${number.latex}$:"),
            explained(number),
            mo.md("How much each earlier step still moves the last output, with such a bias:"),
            lab.memory(subjects, radius=1, length=40, draws=3, hidden_size=16),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Raise the bias of the forget gate from 0 to 5. This is the one number "
                        "that is worth setting by hand before training (Gers, Schmidhuber & "
                        "Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015)."
                    ),
                    "In code": mo.md(
                        "```python\n"
                        'lab.gates(trace, ["f", "i", "c"])\n'
                        'lab.at(trace, "c_1<3>").explain()\n'
                        "lab.lstm_cell_forward(xt, a_prev, c_prev, parameters)   # the course's\n"
                        "```"
                    ),
                }
            ),
        ]
    )
