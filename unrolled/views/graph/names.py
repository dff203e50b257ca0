"""What the parts of a graph are called, in the field's notation: h[2]⟨3⟩."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...errors import InputError

ARROWS = ("→", "←")
Highlight = int | str | Iterable[int | str]


@dataclass(frozen=True)
class Name:
    """The name of a value at a place; layers and steps are counted from one.

    Attributes:
        value: the value's own name.
        step: a number, or a letter of a step such as T; 0 of a state is the initial one.
        layer: None where there is one only.
        direction: None where there is one only; else 0, or 1 for the one that reads from the end.
        part: the part of the network that it is in, "" if it has no parts.
    """

    value: str
    step: int | str | None = None
    layer: int | None = None
    direction: int | None = None
    part: str = ""

    def of_gradient(self) -> "Name":
        """The name of the gradient with respect to it."""
        return replace(self, value=f"d{self.value}")

    @property
    def letter(self) -> str:
        """What stands before the place, as it is drawn."""
        arrow = "" if self.direction is None else ARROWS[self.direction]
        return f"{arrow}{self.value}"

    @property
    def place(self) -> str:
        """What stands behind it, raised where it is drawn."""
        return ("" if self.layer is None else f"[{self.layer}]") + f"⟨{self.step}⟩"

    def __str__(self) -> str:
        return f"{self.part} {self.letter}{self.place}".strip()

    def fits(self, other: "Name") -> bool:
        """Whether this is the other's name, or as much of it as this says."""
        return self.value == other.value and all(
            mine in (None, "", theirs)
            for mine, theirs in (
                (self.step, other.step),
                (self.layer, other.layer),
                (self.direction, other.direction),
                (self.part, other.part),
            )
        )


class Wanted:
    """What is to be highlighted: steps, and names with or without their layer and direction.

    Args:
        highlight: a step, such as 3; a name, such as `"h<3>"` or `"decoder c[2]<1>"`; or several.
    """

    def __init__(self, highlight: Highlight) -> None:
        several = [highlight] if isinstance(highlight, int | str) else list(highlight)
        self.given = several
        self.names = [name_of(each) if isinstance(each, str) else each for each in several]
        self.met: set[int] = set()

    def mark(self, name: Name, *, cell: bool = False) -> str:
        """What stands behind the classes of what has this name: a class, or nothing."""
        found = False
        for position, wanted in enumerate(self.names):
            hit = wanted.fits(name) if isinstance(wanted, Name) else cell and wanted == name.step
            if hit:
                self.met.add(position)
                found = True
        return " highlight" if found else ""

    def check(self, drawn: Iterable[Name]) -> None:
        """Raise if something that was wanted is not there."""
        for position, given in enumerate(self.given):
            if position not in self.met:
                known = list(dict.fromkeys(map(str, drawn)))
                shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
                raise InputError(
                    f"highlight={given!r} is nothing in this graph; it has steps and names such "
                    f"as {shown}."
                )


def name_of(text: str) -> Name:
    """Read a name: the value, then its layer in [] and its step in <> or ⟨⟩, in any order.

    Raises:
        InputError: if the text is no name.
    """
    rest = text.replace("<", "⟨").replace(">", "⟩")
    found = {}
    for key, pattern in (("step", r"⟨([^⟩]+)⟩"), ("layer", r"\[(\d+)\]")):
        match = re.search(pattern, rest)
        found[key] = match[1] if match else None
        rest = rest.replace(match[0], "") if match else rest
    direction = next((n for n, arrow in enumerate(ARROWS) if arrow in rest), None)
    part, _, value = re.sub("[→←]", "", rest).strip().rpartition(" ")
    if not value:
        raise InputError(f"'{text}' names nothing; write a name like h[2]<3>.")
    step, layer = found["step"], found["layer"]
    return Name(
        value,
        int(step) if step and step.isdecimal() else step,
        int(layer) if layer else None,
        direction,
        part.strip(),
    )
