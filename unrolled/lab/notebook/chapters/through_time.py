"""Through time: the same cell again and again, each time with what it said before."""

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab

from ..page import Controls, Riddle, formula, row, slider

INPUTS = {
    "one push, at the first step": lambda t: t == 0,
    "a push at every step": lambda t: t >= 0,
    "a push and a pull in turn": lambda t: 1 - 2 * (t % 2),
    "nothing": lambda t: 0 * t,
}


def run(u: float, steps: int, inputs: str, h_0: float = 0.0) -> lab.Trace:
    """The simple cell with one unit and W = 1 over some steps."""
    params = {"W.h": np.ones((1, 1)), "U.h": np.array([[u]]), "b.h": np.zeros(1)}
    x = np.array(INPUTS[inputs](np.arange(steps)), float)
    return lab.Network(cells.simple, ((params,),)).trace(x[:, None], np.full((1, 1, 1), h_0))


RIDDLE = Riddle(
    "With $U = 1$ the cell gets one push, $x = 1, 0, 0$, and begins at 0. What is $h_3$? (It needs "
    "a calculator, and the same key three times.)",
    float(run(1.0, 3, "one push, at the first step").y[2, 0, 0]),
)


def controls() -> mo.ui.dictionary:
    """How long, how strongly the cell listens to itself, and what it reads."""
    return mo.ui.dictionary(
        {
            "steps": slider(1, 8, 1, 4, "steps $T$"),
            "U": slider(-2, 2, 0.1, 0.9, "$U$"),
            "h_0": slider(-1, 1, 0.1, 0, "$h_0$"),
            "inputs": mo.ui.dropdown(list(INPUTS), next(iter(INPUTS)), label="input"),
            "guess": RIDDLE.guess(),
        }
    )


def nested(steps: int) -> str:
    """What a state is, its equation put into itself down to the first step."""
    equation = lab.latex(cells.simple.equations).split("&=")[1].split(r"\end")[0].strip()
    inside = "h_{0}"
    for step in range(1, steps + 1):
        inside = equation.replace("h_{t-1}", inside).replace("x_{t}", f"x_{{{step}}}")
    return f"h_{{{steps}}} = {inside}"


def heights(trace: lab.Trace) -> Figure:
    """Inputs and states, step by step."""
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    ax = figure.subplots()
    steps = np.arange(1, len(trace.y) + 1)
    ax.bar(steps - 0.2, trace.x[:, 0, 0], 0.35, color="0.75", label="$x_t$")
    ax.bar(steps + 0.2, trace.y[:, 0, 0], 0.35, color="tab:blue", label="$h_t$")
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set(ylim=(-1.1, 1.1), xticks=steps, xlabel="step")
    ax.legend(loc="upper right", frameon=False, ncols=2)
    return figure


def view(controls: Controls) -> mo.Html:
    """The cell written out over its steps, with every number under the pointer."""
    now = controls.value
    trace = run(now["U"], now["steps"], now["inputs"], now["h_0"])
    return mo.vstack(
        [
            mo.md(
                r"""
                # Through time

                Write the cell down once for every step, hand its state from copy to copy, and a
                loop becomes a graph without loops: the network is *unrolled*. The copies share
                their parameters. However long the sequence is, there is nothing more to learn.
                """
            ),
            row(controls[name] for name in ("steps", "U", "h_0", "inputs")),
            lab.unrolled_graph(trace, name="time"),
            heights(trace),
            mo.md("Written out, the last state is one formula of all inputs:"),
            formula(nested(now["steps"])),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Give no input, begin at $h_0 = 0.1$, and raise $U$ above 1. Where does "
                        "the state go? What if $U$ is below −1? Such a cell can remember a sign "
                        "for ever: it is a switch."
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "trace = network.trace(x)   # x is (T, I), or (T, B, I)\n"
                        'trace["h"]                 # (T, B, H): the state after every step\n'
                        "lab.unrolled_graph(trace)\n"
                        "```"
                    ),
                }
            ),
        ]
    )
