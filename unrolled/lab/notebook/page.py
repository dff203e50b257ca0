"""What the chapters' pages are made of: formulas, sliders, and numbers to predict."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import marimo as mo

from ...cell import Cell
from ...views.latex import COURSE, latex
from ..explanation import NamedNumber

Controls = Any  # a `mo.ui.dictionary`, in whose type those of its elements are lost
_CLOSE = 5e-4  # a prediction counts that has three or four digits right


def slider(start: float, stop: float, step: float, value: float, label: str) -> mo.ui.slider:
    """A slider that shows its number."""
    return mo.ui.slider(start, stop, step, value, label=label, show_value=True)


def row(elements: Iterable[mo.Html]) -> mo.Html:
    """Controls side by side, as many as fit."""
    return mo.hstack([*elements], justify="start", wrap=True, gap=1.5)


def formula(tex: str) -> mo.Html:
    """A formula; one that is wider than the page is scrolled."""
    return scrolled(mo.md(f"$$\n{tex}\n$$"))


def scrolled(part: mo.Html) -> mo.Html:
    """Something that may be wider than the page."""
    return mo.Html(f'<div style="overflow-x:auto; max-width:100%">{part.text}</div>')


def explained(number: NamedNumber) -> mo.Html:
    """Where a number comes from."""
    return scrolled(mo.md(number.explain()._repr_markdown_()))


def typeset(cell: Cell, back: bool = False) -> mo.Html:
    """A cell's equations from its own program, and those of one step of BPTT.

    Args:
        cell: the cell.
        back: whether the step of BPTT is seen first.
    """
    tabs = {
        "as papers write": formula(latex(cell.equations)),
        "as the course writes": formula(latex(cell.equations, COURSE)),
        "one step back, derived": formula(latex(cell.backward, forward=cell.forward)),
    }
    return mo.ui.tabs(tabs, value=[*tabs][-1] if back else None)


def plain(text: object, color: str = "inherit") -> mo.Html:
    """Text whose columns stand below each other."""
    style = f"overflow-x:auto; font-size:0.8rem; line-height:1.4; color:{color}"
    return mo.Html(f'<pre style="{style}">{escape(str(text))}</pre>')


@dataclass(frozen=True)
class Riddle:
    """A number that a learner can predict before it is shown.

    Attributes:
        question: what is asked, in Markdown.
        answer: the number.
    """

    question: str
    answer: float

    @staticmethod
    def guess() -> mo.ui.text:
        """Where the prediction is typed."""
        return mo.ui.text(label="Your number:", placeholder="0.1234")

    def view(self, guess: mo.ui.text) -> mo.Html:
        """The question, and what is to be said of the prediction."""
        said = mo.md(self.verdict(guess.value))
        body = mo.vstack([mo.md(f"**Predict a number.** {self.question}"), row([guess, said])])
        return mo.callout(body, kind="neutral")

    def verdict(self, typed: str) -> str:
        """What is said of what was typed."""
        if not typed.strip():
            return ""
        try:
            number = float(typed.replace("−", "-").replace(",", "."))
        except ValueError:
            return "This is no number; write it like 0.25 or 1e-3."
        if abs(number - self.answer) <= _CLOSE * abs(self.answer):
            return f"**Right:** {self.answer:.9g}"
        return f"Not yet: {number:g} is too {'small' if number < self.answer else 'large'}."
