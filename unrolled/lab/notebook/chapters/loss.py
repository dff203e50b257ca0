"""The loss: how surprised the network is at each step by what really came."""

from functools import cache

import marimo as mo
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from unrolled import lab

from ..page import Controls, Riddle, formula, row, slider

WORD = "hello"
SYMBOLS = "ehlo\n"
READ, RIGHT = [None, *map(SYMBOLS.index, WORD)], [*map(SYMBOLS.index, WORD), 4]
UNITS, STEPS = 12, 60

RIDDLE = Riddle(
    "A network that knows nothing gives each of the 5 symbols the same probability. What is its "
    "loss, summed over the 6 steps, in nats?",
    6 * float(np.log(5)),
)


@cache
def learned() -> list[dict[str, np.ndarray]]:
    """The parameters after 0, 1, 2 … steps of learning to spell the word."""
    draw = np.random.default_rng(0).standard_normal
    n = len(SYMBOLS)
    shapes = {"Wax": (UNITS, n), "Waa": (UNITS, UNITS), "Wya": (n, UNITS)}
    now = {key: 0.3 * draw(shape) for key, shape in shapes.items()}
    now |= {"b": np.zeros((UNITS, 1)), "by": np.zeros((n, 1))}
    found = []
    for _ in range(STEPS + 1):
        found.append({key: array.copy() for key, array in now.items()})
        lab.optimize(READ, RIGHT, np.zeros((UNITS, 1)), now, learning_rate=0.1)
    return found


def probabilities(steps: int) -> np.ndarray:
    """What the network expects at each step, (symbols, steps)."""
    parameters = learned()[steps]
    x = np.stack([np.eye(5)[k] if k is not None else np.zeros(5) for k in READ], axis=1)
    given = {**parameters, "ba": parameters["b"]}
    _, y, _ = lab.rnn_forward(x[:, None], np.zeros((UNITS, 1)), given)
    return np.asarray(y[:, 0])


def controls() -> mo.ui.dictionary:
    """How long the network has learned."""
    return mo.ui.dictionary(
        {"steps": slider(0, STEPS, 1, 0, "steps of learning"), "guess": RIDDLE.guess()}
    )


def picture(y: np.ndarray, losses: np.ndarray) -> Figure:
    """The probabilities, with what was right in a frame, and the loss of each step below."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    above.imshow(y, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for step, right in enumerate(RIGHT):
        above.add_patch(_frame(step, right))
        for symbol in range(len(SYMBOLS)):
            ink = "white" if y[symbol, step] > 0.55 else "black"
            above.text(step, symbol, f"{y[symbol, step]:.2f}", color=ink, ha="center", va="center")
    above.set_yticks(range(5), [*SYMBOLS.replace("\n", "↵")])
    above.set_ylabel("expected next")
    below.bar(range(len(losses)), losses, color="tab:red")
    below.set_xticks(range(len(losses)), ["(nothing)", *WORD])
    below.set(ylim=(0, 3), ylabel="loss, nats", xlabel="what was read")
    return figure


def _frame(step: int, symbol: int) -> Rectangle:
    return Rectangle((step - 0.5, symbol - 0.5), 1, 1, fill=False, edgecolor="tab:red", lw=2)


def view(controls: Controls) -> mo.Html:
    """What the network expects, and what that costs."""
    steps = controls["steps"].value
    y = probabilities(steps)
    losses = -np.log(y[RIGHT, np.arange(len(RIGHT))])
    total, mean = float(losses.sum()), float(losses.mean())
    return mo.vstack(
        [
            mo.md(
                r"""
                # The loss

                After every step the network says what it expects next: a probability for each
                symbol, by a softmax of its state. Then it is shown what came. Its loss is the
                surprise, −log of the probability that it gave to that; the loss of a sequence is
                the sum over its steps.
                """
            ),
            formula(
                r"\hat y_t = \operatorname{softmax}(W_y h_t + b_y) \qquad "
                r"L = \sum_{t=1}^{T} L_t = -\sum_{t=1}^{T} \log \hat y_{t,\,y_t}"
            ),
            mo.md(f"A network learns to spell *{WORD}*. The framed symbol is the one that came."),
            row([controls["steps"]]),
            picture(y, losses),
            formula(
                rf"L = {' + '.join(f'{one:.3f}' for one in losses)} = \mathbf{{{total:.6f}}}"
                r"\text{ nats}"
            ),
            mo.md(
                f"Per symbol these are {mean:.4f} nats, or {mean / np.log(2):.4f} **bits**: so "
                f"many are needed to write a symbol down with the network's help. Its "
                f"**perplexity** is {np.exp(mean):.4f}: it hesitates as if it had to choose among "
                "so many symbols, all equally likely."
            ),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "After an l comes either another l or an o. At which step of learning does "
                        "the network begin to tell the two apart? What must it have remembered?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "loss, gradients, a_last = lab.optimize(X, Y, a_prev, parameters)\n"
                        "```"
                    ),
                }
            ),
        ]
    )
