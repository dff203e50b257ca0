"""Types of networks: what goes in at each step, and which outputs count."""

from functools import cache
from typing import Any

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab
from unrolled.lab.types.task import Task

from ..page import Controls, Riddle, row

TASKS = {
    "one to one": lab.kinds_of_characters,
    "one to many": lab.names_of_countries,
    "many to one": lab.languages_of_words,
    "many to many": lab.next_characters,
    "sequence to sequence": lab.past_tenses,
}
CELLS = {cell.name: cell for cell in (cells.lstm, cells.gru, cells.simple)}
WORDS = {
    "one to one": "One step, and no past: an ordinary network, here of one hidden layer.",
    "one to many": "One thing goes in, a sequence comes out; each output is the next input.",
    "many to one": "A sequence goes in, and only what is said at its end counts.",
    "many to many": "An output at every step, as many as there are inputs.",
    "sequence to sequence": (
        "Of unequal length: one network reads, and its last state is where another begins to "
        "write (Cho et al. 2014; Sutskever, Vinyals & Le 2014)."
    ),
}

RIDDLE = Riddle(
    "A many-to-one network reads words of up to 20 letters, a batch of 32 at a time. How many of "
    "its outputs count in one batch?",
    32.0,
)


@cache
def learned(kind: str, cell: str) -> tuple[Task, lab.Model, list[float]]:
    """The task of a type, learned by a cell."""
    task = TASKS[kind]()
    model = task.model(CELLS[cell])
    return task, model, task.learn(model)


def controls() -> mo.ui.dictionary:
    """Which type, which cell, and whether to learn."""
    return mo.ui.dictionary(
        {
            "kind": mo.ui.dropdown(list(TASKS), "many to one", label="type"),
            "cell": mo.ui.dropdown(list(CELLS), "gru", label="cell"),
            "learn": mo.ui.checkbox(label="learn its task (some seconds)"),
            "guess": RIDDLE.guess(),
        }
    )


def curve(losses: list[float]) -> Figure:
    """The loss of each batch."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    ax = figure.subplots()
    ax.plot(np.arange(1, len(losses) + 1), losses, color="tab:red", linewidth=1)
    ax.set(xlabel="step of learning", ylabel="loss, nats", ylim=(0, None))
    return figure


def result(kind: str, cell: str) -> list[Any]:
    """What was learned: the loss, the score, and some answers."""
    with mo.status.spinner(f"The {cell} learns …"):
        task, model, losses = learned(kind, cell)
    rows = []
    for given, right in task.held_out[:8]:
        said = task.answer(model, given)
        rows.append(f"| `{given}` | `{said}` | `{''.join(right).strip()}` |")
    return [
        curve(losses),
        mo.md(
            f"On what it never saw, {task.accuracy(model):.0%} of its outputs are right; saying "
            f"always the commonest one gets {task.baseline:.0%}."
        ),
        mo.md("\n".join(["| given | it says | right |", "| :-- | :-- | :-- |", *rows])),
    ]


def view(controls: Controls) -> mo.Html:
    """The type, its drawing, and its task."""
    now = controls.value
    kind, cell = now["kind"], now["cell"]
    task = TASKS[kind]()
    return mo.vstack(
        [
            mo.md(
                r"""
                # Types of networks

                The cell stays as it is. What differs from job to job is at which steps something
                goes in, at which steps what comes out counts, and whether an output is fed back.
                """
            ),
            row([controls["kind"], controls["cell"]]),
            mo.md(WORDS[kind]),
            lab.unrolled_graph(lab.drawing(kind, CELLS[cell]), name="type"),
            mo.md(f"**A small task of this type:** {task.title}. {len(task.training)} examples."),
            row([controls["learn"]]),
            *(result(kind, cell) if now["learn"] else []),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Let the simple cell learn the past of verbs. Which letters does it get "
                        "wrong, and where do they stand in the word?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "task = lab.past_tenses()\n"
                        "model = task.model(cells.lstm)\n"
                        "losses = task.learn(model)\n"
                        'task.answer(model, "sing")\n'
                        "lab.unrolled_graph(task.drawing())\n"
                        "```"
                    ),
                }
            ),
        ]
    )
