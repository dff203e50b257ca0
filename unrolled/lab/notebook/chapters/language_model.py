"""A language model: it reads what it wrote, and writes on."""

from functools import cache

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab
from unrolled.lab.types.task import END, Task

from ..page import Controls, Riddle, formula, row, scrolled, slider

RIDDLE = Riddle(
    "Two letters have the probabilities 0.8 and 0.2. Which probability has the first at "
    "temperature 0.5?",
    0.8**2 / (0.8**2 + 0.2**2),
)
LANGUAGES = ("English", "Finnish", "German", "Italian", "Polish", "Turkish")
NAMES = 12


@cache
def learned() -> tuple[Task, lab.Model]:
    """A GRU that has learned to write the names of countries in six languages."""
    task = lab.names_of_countries()
    model = task.model(cells.gru)
    task.learn(model)
    return task, model


def controls() -> mo.ui.dictionary:
    """The temperature, the language, how the name begins, and another draw."""
    return mo.ui.dictionary(
        {
            "temperature": slider(0.1, 2, 0.1, 1, "temperature"),
            "language": mo.ui.dropdown(LANGUAGES, "Italian", label="language"),
            "begin": mo.ui.text("s", label="after the letters"),
            "draw": slider(1, 20, 1, 1, "another draw"),
            "guess": RIDDLE.guess(),
        }
    )


def expected(language: str, begin: str) -> np.ndarray:
    """The probability of each letter after what was written."""
    task, model = learned()
    return np.asarray(model.probabilities(task.encode([(language, (*begin, END))]))[-1, 0])


def sharpened(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What a temperature makes of probabilities."""
    powered = probabilities ** (1 / temperature)
    return np.asarray(powered / powered.sum())


def picture(plain: np.ndarray, symbols: tuple[str, ...], temperature: float) -> Figure:
    """The likeliest letters, at temperature 1 and at the one chosen."""
    best = plain.argsort()[::-1][:16]
    places = np.arange(len(best))
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    ax = figure.subplots()
    ax.bar(places - 0.2, plain[best], 0.4, color="0.75", label="what it believes")
    now = sharpened(plain, temperature)[best]
    ax.bar(places + 0.2, now, 0.4, color="tab:orange", label=f"temperature {temperature:g}")
    names = {END: "end", " ": "space"}
    ax.set_xticks(places, [names.get(symbols[place], symbols[place]) for place in best])
    ax.set(ylim=(0, 1), ylabel="probability")
    ax.legend(frameon=False)
    return figure


def inside(language: str, name: str) -> lab.Trace:
    """The network's run over a name."""
    task, model = learned()
    return model.network.trace(task.encode([(language, (*name, END))]).x[1:])


def view(controls: Controls) -> mo.Html:
    """What comes next, names that nobody has heard, and a look inside."""
    now = controls.value
    temperature, language = now["temperature"], now["language"]
    with mo.status.spinner("It learns the names of countries in six languages …"):
        task, model = learned()
    letters = "".join(letter for letter in now["begin"].lower() if letter in task.symbols)
    plain = expected(language, letters)
    names = [
        task.answer(model, language, temperature, rng=NAMES * now["draw"] + number)
        for number in range(NAMES)
    ]
    real = {"".join(word).strip() for where, word in task.training if where == language}
    shown = [f"**{name}**" if name in real else name for name in names if name]
    longest = max(names, key=len) or "?"
    return mo.vstack(
        [
            mo.md(
                r"""
                # A language model

                A network that predicts the next letter can write: draw a letter by the
                probabilities that it gives, hand it in as the next input, and so on until the
                end is drawn. This one has just learned, on your machine, to write names of
                countries; its first input says in which language.

                The *temperature* $\tau$ makes it careful or bold. Near 0 it writes what is
                likeliest, at 1 what it believes, above that nearly anything:
                """
            ),
            formula(r"p_k \propto \hat y_k^{\,1/\tau}"),
            row([controls["temperature"], controls["language"]]),
            mo.md("**The next letter.** What it believes, and what the temperature makes of it:"),
            row([controls["begin"]]),
            picture(plain, task.symbols, temperature),
            row([controls["draw"]]),
            mo.md(f"**Countries that it invents** (bold: it knows them): {' · '.join(shown)}"),
            mo.md(
                f"On names that it never saw it gets {task.accuracy(model):.0%} of the letters "
                f"right (the commonest letter: {task.baseline:.0%}) and needs "
                f"{task.bits(model):.2f} bits for each."
            ),
            mo.md(f"A look inside: what some of its units do while it writes *{longest}*."),
            scrolled(mo.as_html(lab.firing(inside(language, longest), longest))),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Find the highest temperature at which the names still sound like the "
                        "language. Why does temperature 0.1 write one name again and again?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "task = lab.names_of_countries()\n"
                        "model = task.model(cells.gru)\n"
                        "losses = task.learn(model)\n"
                        f'task.answer(model, "{language}", temperature={temperature:g})\n'
                        "```\n"
                        "`unrolled train lm` trains language models on text of your own."
                    ),
                }
            ),
        ]
    )
