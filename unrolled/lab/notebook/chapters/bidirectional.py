"""Bidirectional networks: what came before, and what comes after."""

import marimo as mo
import numpy as np

from unrolled import cells, lab

from ..page import Controls, Riddle, formula, row, slider

WORDS = ["the", "bank", "of", "the", "river"]

RIDDLE = Riddle(
    "The layer below is bidirectional with $H = 100$ and reads words of size 50. How many numbers "
    "has its output $y_t$?",
    200.0,
)


def run() -> lab.Trace:
    """A bidirectional layer reads a sentence whose words are random vectors, alike for alike."""
    known = sorted({*WORDS})
    vectors = np.random.default_rng(0).standard_normal((len(known), 6))
    network = lab.Network.init(cells.simple, 6, 8, bidirectional=True, rng=0)
    return network.trace(vectors[[known.index(word) for word in WORDS]])


def controls() -> mo.ui.dictionary:
    """At which word to look."""
    return mo.ui.dictionary(
        {
            "step": slider(1, len(WORDS), 1, 2, "step"),
            "guess": RIDDLE.guess(),
        }
    )


def view(controls: Controls) -> mo.Html:
    """The graph, and what both halves know at a step."""
    trace, step = run(), controls["step"].value
    return mo.vstack(
        [
            mo.md(
                r"""
                # Bidirectional

                *The bank* … of the river, or of England? Who labels the word has to know what
                comes after it. So a second network of the same kind, with parameters of its
                own, reads the sentence from its end, and the outputs of both stand side by side
                (Schuster & Paliwal 1997). It needs the whole sentence: it can tag and translate,
                and cannot predict what it has not heard.
                """
            ),
            formula(
                r"y_t = \begin{bmatrix} \overrightarrow{h}_t \\ \overleftarrow{h}_t \end{bmatrix}"
            ),
            row([controls["step"]]),
            lab.unrolled_graph(trace, highlight=step, name="both"),
            mo.md(
                f"At *{WORDS[step - 1]}*, the forward half has read "
                f"“{' '.join(WORDS[:step])}”, the backward half “{' '.join(WORDS[step - 1 :])}”:"
            ),
            lab.halves(trace, step, labels=WORDS),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "By how much does the forward half of step 2 move if the last word is "
                        "another one? Find the square in the picture that says so."
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "network = lab.Network.init(cells.lstm, 6, 8, bidirectional=True)\n"
                        'lab.at(trace, "→h_1<2>"), lab.at(trace, "←h_1<2>")\n'
                        "lab.halves(trace, step=2, labels=words)\n"
                        "```"
                    ),
                }
            ),
        ]
    )
