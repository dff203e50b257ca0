"""The GRU: a gate that decides whether to keep."""

from typing import Any

import marimo as mo
import numpy as np

from unrolled import cells, lab

from ..page import Controls, Riddle, row, slider, typeset

KINDS = {
    "simplified: one gate": cells.gru_simplified,
    "reset before the product, as in the paper": cells.gru_original,
    "reset after the product, as in cuDNN": cells.gru,
}
STEPS, PUSH = 24, 3

RIDDLE = Riddle(
    "The update gate is $z = 0.9$ at ten steps, the candidate $n$ is 0 at all of them, and "
    "$h_0 = 1$. What is $h_{10}$?",
    0.9**10,
)


def run(kind: str, bias: float) -> lab.Trace:
    """Six units read one push among zeros; the bias of the update gate is given."""
    cell = KINDS[kind]
    network = lab.Network.init(cell, 1, 6, rng=2)
    network.params[0][0]["b.z"][:] = bias
    x = np.zeros((STEPS, 1))
    x[PUSH - 1] = 3
    return network.trace(x)


def controls() -> mo.ui.dictionary:
    """Which GRU, and the bias of its update gate."""
    return mo.ui.dictionary(
        {
            "kind": mo.ui.dropdown(list(KINDS), next(iter(KINDS)), label="GRU"),
            "bias": slider(-4, 6, 0.5, 2, "bias of the update gate $b_z$"),
            "guess": RIDDLE.guess(),
        }
    )


def view(controls: Controls) -> mo.Html:
    """Gates over time, and what the cell remembers with such a gate."""
    now = controls.value
    cell, bias = KINDS[now["kind"]], now["bias"]
    trace = run(now["kind"], bias)
    subjects: dict[str, Any] = {
        "simple": cells.simple,
        "GRU": cell,
        f"GRU, $b_z$ = {bias:g}": (cell, {"b.z": bias}),
    }
    return mo.vstack(
        [
            mo.md(
                r"""
                # GRU

                A gate is a number between 0 and 1 for every unit, worked out at every step from
                the input and the state. The *update* gate mixes what was there with a candidate
                for something new. Our $z$ **keeps**, as in torch, cuDNN and the paper: at 1 the
                unit stays as it is. The course's $\Gamma_u$ **replaces**: it is $1 - z$, and
                in its letters our $z$ is $\overline{\Gamma}_u$. A unit whose gate keeps can carry a
                number, and its gradient, over any number of steps. The *reset* gate decides how
                much of the past the candidate may see (Cho et al. 2014).
                """
            ),
            row([controls["kind"]]),
            typeset(cell),
            lab.cell_graph(cell, name="gru"),
            mo.md(f"Six units read zeros, and one push at step {PUSH}:"),
            row([controls["bias"]]),
            lab.gates(trace),
            mo.md("How much each earlier step still moves the last output, with such a bias:"),
            lab.memory(subjects, radius=1, length=40, draws=3, hidden_size=16),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "With which bias does the push still show at the last step? And what must "
                        "the gate have done at the step of the push itself?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        'lab.gates(trace)                      # or lab.gates(trace, ["z", "h"])\n'
                        'lab.memory({"open": (cells.gru, {"b.z": 3})})\n'
                        "lab.gru_cell_forward(xt, c_prev, parameters)   # the course's\n"
                        "```"
                    ),
                }
            ),
        ]
    )
