"""Vanishing gradients: what becomes of a gradient on a long way back."""

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab

from ..page import Controls, Riddle, formula, row, slider

LENGTH = 40

RIDDLE = Riddle(
    "If every step halves the gradient, what is left of 1 after 20 steps?",
    0.5**20,
)


def controls() -> mo.ui.dictionary:
    """How strongly the network listens to itself."""
    return mo.ui.dictionary(
        {
            "radius": slider(0.2, 4, 0.1, 1, "spectral radius of $U$"),
            "guess": RIDDLE.guess(),
        }
    )


def one_unit() -> Figure:
    """The derivative of tanh: what the curve lets through."""
    figure = Figure(figsize=(6, 2.0), layout="constrained")
    ax = figure.subplots()
    along = np.linspace(-4, 4, 201)
    ax.plot(along, 1 - np.tanh(along) ** 2, color="tab:red")
    ax.set(xlim=(-4, 4), ylim=(0, 1.05), xlabel="the sum before the tanh")
    ax.set_title(r"the slope of tanh, $1 - \tanh^2$: never above 1", fontsize="medium")
    return figure


def view(controls: Controls) -> mo.Html:
    """What reaches each earlier step, for several draws of three cells."""
    radius = controls["radius"].value
    three = {"simple": cells.simple, "GRU": cells.gru, "LSTM": cells.lstm}
    remembered = lab.memory(three, radius=radius, length=LENGTH, draws=4, hidden_size=16)
    return mo.vstack(
        [
            mo.md(
                r"""
                # Vanishing gradients

                On its way back through one step a gradient is multiplied by a matrix: the slopes
                of the tanh, then $U$ transposed. Over forty steps it is multiplied forty times.
                What is smaller than one becomes nothing, and the network cannot learn what
                happened long ago (Hochreiter 1991; Bengio, Simard & Frasconi 1994). What is larger
                than one can grow without bounds (Pascanu, Mikolov & Bengio 2013).
                """
            ),
            formula(lab.latex(cells.simple.backward, forward=cells.simple.forward)),
            one_unit(),
            mo.md(
                f"Four draws each of three cells with 16 units read {LENGTH} steps of noise. The "
                "line says how much each step still moves the last output. The spectral radius is "
                "the size of the largest eigenvalue of the recurrent matrix, or matrices."
            ),
            row([controls["radius"]]),
            remembered,
            mo.md(
                "Do gates not help, then? Drawn at random they are half open, and a half of a half "
                "is soon nothing. The next two chapters open them."
            ),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "At which radius does the simple cell neither forget nor explode? Is there "
                        "one that holds for all steps?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "lab.memory([cells.simple, cells.gru, cells.lstm], "
                        f"radius={radius:g})\n"
                        "lab.memory(network)   # of any trained network\n"
                        "lab.clip(gradients, maxValue=5)   # the course's remedy for explosions\n"
                        "```"
                    ),
                }
            ),
        ]
    )
