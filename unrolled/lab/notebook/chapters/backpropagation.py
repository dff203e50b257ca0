"""Backpropagation through time, one arrow at a time."""

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab

from ..clickable import Clickable
from ..page import Controls, Riddle, explained, row, slider, typeset

CELLS = {cell.name: cell for cell in (cells.simple, cells.gru_simplified, cells.lstm)}
STEPS, UNITS = 4, 2
LAST, EVERY = "at the last step", "at every step"
BEGIN = {"kind": "cell", "name": "", "step": STEPS}


def run(cell: str, loss: str) -> lab.Gradients:
    """Four steps forward, and the gradients of a loss that is the sum of the outputs it sees."""
    network = lab.Network.init(CELLS[cell], 1, UNITS, rng=3)
    trace = network.trace(np.array([[1.0], [0.5], [-1.0], [0.3]]))
    seen = np.arange(1, STEPS + 1) >= (STEPS if loss == LAST else 1)
    return trace.backward(np.where(seen[:, None, None], np.ones_like(trace.y), 0))


def _riddle() -> Riddle:
    params = {"W.h": np.ones((1, 1)), "U.h": np.array([[0.5]]), "b.h": np.zeros(1)}
    trace = lab.Network(cells.simple, ((params,),)).trace(np.array([[0.5], [0.0]]))
    back = trace.backward(np.array([[[0.0]], [[1.0]]]))
    return Riddle(
        "One unit, $W = 1$, $U = 0.5$, $b = 0$, $h_0 = 0$, inputs $0.5, 0$, and the loss is $h_2$. "
        r"What is $\mathrm{d}h_1$?",
        float(back["h"][0, 0, 0]),
    )


RIDDLE = _riddle()


def controls() -> mo.ui.dictionary:
    """The graph, a part of which is clicked; which cell, which loss, which unit."""
    drawn = Clickable(lab.unrolled_graph(run("simple", LAST), name="back"), **BEGIN)
    return mo.ui.dictionary(
        {
            "graph": mo.ui.anywidget(drawn),
            "cell": mo.ui.dropdown(list(CELLS), "simple", label="cell"),
            "loss": mo.ui.dropdown([LAST, EVERY], LAST, label="the loss looks at outputs"),
            "unit": slider(1, UNITS, 1, 1, "unit"),
            "guess": RIDDLE.guess(),
        }
    )


def asked(clicked: dict[str, str], unit: int) -> str:
    """The gradient that belongs to a part of the graph, in the notation of `lab.at`."""
    kind, name, step = clicked["kind"], clicked["name"], clicked["step"]
    if kind in ("input", "output"):
        return f"d{name}_1<{step}>" if kind == "input" else f"d{name}_{unit}<{step}>"
    if kind == "gradient":
        return f"{name}_{1 if name == 'dx' else unit}<{step}>"
    return f"d{name if kind == 'state' else 'h'}_{unit}<{step}>"


def arriving(clicked: dict[str, str], states: tuple[str, ...]) -> list[str]:
    """The arrows that bring gradient there, as they are highlighted."""
    kind, name, step = clicked["kind"], clicked["name"], int(clicked["step"])
    if kind in ("input", "output", "gradient"):
        return [f"{name if kind == 'gradient' else f'd{name}'}<{step}>"]
    state = name if kind == "state" else states[0]
    later = [f"d{state}_prev<{step + 1}>"] if step < STEPS else []
    return [f"dy<{step}>", *later] if step and state == states[0] else later


def shares(gradients: lab.Gradients, entry: str) -> Figure:
    """What each step adds to the gradient of a parameter."""
    found = [arrow.value for arrow in lab.arrows(gradients, f"d{entry}")]
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    ax = figure.subplots()
    steps = np.arange(1, len(found) + 1)
    ax.bar(steps, found, color="tab:purple")
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set_xticks(steps)
    ax.set(xlabel="step", title=f"d{entry}: {sum(found):.6f} in all, step by step")
    return figure


def view(controls: Controls) -> mo.Html:
    """The graph with its gradients, and the chain rule at the place that was clicked."""
    now = controls.value
    gradients = run(now["cell"], now["loss"])
    clicked = controls["graph"].widget.clicked
    name = asked(clicked, now["unit"])
    number = lab.at(gradients, name)
    arrows = arriving(clicked, CELLS[now["cell"]].states)
    drawn = lab.unrolled_graph(gradients, name="back", highlight=arrows)
    controls["graph"].widget.svg = str(drawn)
    recurrent = next(block for block in gradients.trace.network.params[0][0] if block[0] == "U")
    return mo.vstack(
        [
            mo.md(
                r"""
                # Backpropagation through time

                The loss is a number at the end of a graph. How much does it move if one number in
                the middle moves? Ask every arrow that leaves that number, multiply what each does
                on its way by what it brings back, and add up. A state has two ways out: to its
                output, and to the next step. So one begins at the last step and walks to the
                left. Here $\mathrm{d}h$ is short for $\partial L / \partial h$.

                **Click a cell or an arrow**, from the last step back to the first.
                """
            ),
            row(controls[key] for key in ("cell", "loss", "unit")),
            controls["graph"],
            mo.md(f"#### The chain rule for `{number.name}`"),
            explained(number),
            mo.md(
                "A parameter serves at every step, and its gradient is the sum of what all of "
                "them ask of it:"
            ),
            shares(gradients, f"{recurrent}[1,2]"),
            mo.md("All of it is one program, which is derived from the cell's equations:"),
            typeset(CELLS[now["cell"]], back=True),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Let the loss look at the last step only, and compare the gradients at "
                        "steps 4, 3, 2 and 1. The next chapter asks what becomes of them in the "
                        "long run."
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "gradients = trace.backward(dy)     # dy is (T, B, H)\n"
                        f'lab.at(gradients, "{name}").explain()\n'
                        f'lab.arrows(gradients, "{name}")   # the terms, one by one\n'
                        "lab.unrolled_graph(gradients)\n"
                        "```"
                    ),
                }
            ),
        ]
    )
