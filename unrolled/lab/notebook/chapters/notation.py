"""Notation: how one number of a recurrent network is called."""

import marimo as mo
import numpy as np

from unrolled import cells, lab

from ..page import Controls, Riddle, explained, formula, row, slider

UNITS, EXAMPLES, LAYERS, STEPS = 5, 2, 3, 4


def run() -> lab.Trace:
    """Three layers of the simple cell read four steps of two examples."""
    network = lab.Network.init(cells.simple, 3, UNITS, num_layers=LAYERS, rng=1)
    return network.trace(np.random.default_rng(1).standard_normal((STEPS, EXAMPLES, 3)))


RIDDLE = Riddle(
    "What is the largest output of the top layer, over both examples and all steps? The graph "
    "tells its numbers under the pointer.",
    float(run()["h"].max()),
)


def controls() -> mo.ui.dictionary:
    """A slider for each index."""
    return mo.ui.dictionary(
        {
            "unit": slider(1, UNITS, 1, 5, "unit"),
            "example": slider(1, EXAMPLES, 1, 2, "example"),
            "layer": slider(1, LAYERS, 1, 3, "layer"),
            "step": slider(1, STEPS, 1, 4, "step"),
            "guess": RIDDLE.guess(),
        }
    )


def view(controls: Controls) -> mo.Html:
    """The number that the indices name, in the graph and by itself."""
    place = controls.value
    name = f"a_{place['unit']}^({place['example']})[{place['layer']}]<{place['step']}>"
    trace = run()
    number = lab.at(trace, name)
    graph = lab.unrolled_graph(
        trace, example=place["example"], highlight=f"h[{place['layer']}]<{place['step']}>"
    )
    return mo.vstack(
        [
            mo.md(
                r"""
                # Notation

                A network has many numbers, and every one has an address. In
                $a_5^{(2)[3]\langle 4\rangle}$ the letter says what it is, here the output of a
                cell, and everything else where it is, always counted from one:

                | written | stands for | where |
                | :-- | :-- | :-- |
                | $a_5$ | the fifth **unit** of the vector | below |
                | $a^{(2)}$ | the second **example** of the batch | in round brackets |
                | $a^{[3]}$ | the third **layer** | in square brackets |
                | $a^{\langle 4\rangle}$ | the fourth **step** of the sequence | in angle brackets |

                The course calls that output $a$. It is the cell's hidden state, and most papers
                call it $h$: so it stands in the graph. Choose an address:
                """
            ),
            row(controls[index] for index in ("unit", "example", "layer", "step")),
            graph,
            formula(f"{number.latex} = {float(number):.8f}"),
            mo.md("It can say where it comes from:"),
            explained(number),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Which numbers of the graph change when you choose the other example, and "
                        "which never do? What is shared by both?"
                    ),
                    "In code": mo.md(
                        f'```python\nnumber = lab.at(trace, "{name}")\nnumber.explain()\n```'
                    ),
                }
            ),
        ]
    )
