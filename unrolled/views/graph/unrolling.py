"""What is drawn of a network written out over its steps: which cells, which arrows, what words."""

from dataclasses import dataclass

from ...cell import Cell
from ...errors import InputError
from ...network import Network, Trace

Words = tuple[str | None, ...]  # for each step: words, "" for the notation's own, None for nothing


@dataclass(frozen=True)
class Unrolling:
    """A network written out over its steps. The types of networks are values of this.

    With `cell` any cell, and four steps:

        one to one     Unrolling(cell, inputs=("",), outputs=("",))
        one to many    Unrolling(cell, ("", None, None, None), ("",) * 4, feedback=(1, 2, 3))
        many to one    Unrolling(cell, ("",) * 4, (None, None, None, ""))
        many to many   Unrolling(cell, ("",) * 4, ("",) * 4)
        of unequal     Unrolling(cell, ("g", "o", None, None), (None, None, "w", "e"),
        length             feedback=(3,), parts=(("encoder", 2), ("decoder", 2)))

    Attributes:
        cell: the equations of every box.
        inputs: for each step the words below its arrow from outside: "" writes x⟨t⟩, None draws no
            arrow. As many as there are steps.
        outputs: for each step alike the words above its arrow to the outside; "" writes y⟨t⟩.
        layers: how many layers stand one above the other.
        directions: 1, or 2 if each layer also reads the sequence from its end.
        feedback: the steps, counted from one over all parts, whose output is the next step's input.
        parts: (name, number of steps) of each part, from left to right, where there are several,
            such as an encoder and a decoder. In each part ⟨t⟩ counts from one.
        output: the letter of the output: y, or ŷ where a prediction is made of it.
        total: how long the sequence is where not all its steps are drawn, a number or a letter:
            then "…" stands before the last one drawn, which has this number; None if all are.

    Raises:
        InputError: if these do not fit together.
    """

    cell: Cell
    inputs: Words
    outputs: Words
    layers: int = 1
    directions: int = 1
    feedback: tuple[int, ...] = ()
    parts: tuple[tuple[str, int], ...] = ()
    output: str = "y"
    total: int | str | None = None

    def __post_init__(self) -> None:
        steps = self.steps
        problem = None
        if not steps or len(self.outputs) != steps:
            problem = (
                "has one entry of inputs and one of outputs for each step; found "
                f"{steps} and {len(self.outputs)}"
            )
        elif self.layers < 1 or self.directions not in (1, 2):
            problem = (
                f"has one layer or more and 1 or 2 directions; found {self.layers} layers and "
                f"{self.directions} directions"
            )
        elif any(not 1 <= step < steps or self.outputs[step - 1] is None for step in self.feedback):
            problem = (
                "feeds back outputs of steps that have one and are not the last of "
                f"{steps}; found feedback={self.feedback}"
            )
        elif self.feedback and self.directions == 2:
            problem = "that reads from its end, too, cannot feed an output back as the next input"
        elif self.parts and (
            sum(count for _, count in self.parts) != steps or min(n for _, n in self.parts) < 1
        ):
            problem = f"has parts that make up its {steps} steps; found parts={self.parts}"
        elif isinstance(self.total, int) and self.total <= steps:
            problem = f"draws fewer steps than its total; found {steps} of total={self.total}"
        elif self.total is not None and (self.parts or steps < 2):
            problem = "leaves steps out if it has no parts and draws two steps or more"
        if problem:
            raise InputError(f"an unrolled graph {problem}.")

    @classmethod
    def of(cls, what: Cell | Network | Trace, length: int | None = None) -> "Unrolling":
        """What one sees of a cell, a network, or a run: an input and an output at every step.

        Args:
            what: a cell, which makes one layer; a network; or a trace.
            length: how many steps are drawn: 4 if None, or all of a trace up to 8. Of a trace that
                has more, "…" stands for the steps between them and the last.

        Raises:
            InputError: if the length is no number of steps.
        """
        network = what.network if isinstance(what, Trace) else what
        layers, directions = 1, 1
        if isinstance(network, Network):
            layers, directions, cell = network.num_layers, network.directions, network.cell
        elif isinstance(network, Cell):
            cell = network
        else:
            raise InputError(
                "an unrolled graph is drawn of a Cell, a Network, a Trace, Gradients or an "
                f"Unrolling; found {type(what).__name__}."
            )
        there = len(what.x) if isinstance(what, Trace) else None
        drawn = (4 if there is None else min(there, 8)) if length is None else length
        if drawn < 1 or (there is not None and drawn > there):
            known = "one step or more" if there is None else f"1 to {there} steps"
            raise InputError(f"an unrolled graph draws {known}; found length={drawn}.")
        total = there if there is not None and there > drawn > 1 else None
        words = ("",) * drawn
        return cls(cell, words, words, layers, directions, total=total)

    @property
    def steps(self) -> int:
        """How many steps are drawn."""
        return len(self.inputs)
