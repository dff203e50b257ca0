"""What was found in a learner's function: a value that prints, and shows in notebooks."""

from dataclasses import dataclass, replace
from html import escape

from ...language.expressions import written
from ...listing import equations, unnamed
from ...program import Program
from ...views.latex import COURSE, latex
from ..course.layout import CourseCell
from .mistakes import Mistake
from .reading import Verdict

_GREEN, _RED = "#1a7f37", "#cf222e"
_ALSO = 3  # so many other mistakes are named that give the same numbers


@dataclass(frozen=True, eq=False)
class Finding:
    """A known mistake whose numbers were found.

    Attributes:
        mistake: the mistake.
        arrays: the wrong arrays whose numbers it gives.
        whole: whether it explains all that is wrong, and nothing that it would change is right.
        also: other mistakes that give the same numbers.
    """

    mistake: Mistake
    arrays: tuple[str, ...]
    whole: bool
    also: tuple[Mistake, ...] = ()

    @property
    def text(self) -> str:
        """The mistake in a sentence, with the arrays if it is not all that is wrong."""
        name = self.mistake.name
        if not self.whole:
            name = f"in {', '.join(self.arrays)} only: {name}"
        others = "; or ".join(mistake.name for mistake in self.also[:_ALSO])
        return f"{name}{f' (or {others})' if others else ''}."


@dataclass(frozen=True, eq=False)
class Report:
    """Whether a function is right, array by array, and which mistake it makes.

    Attributes:
        name: of the learner's function.
        of: the function of the lab that it should be.
        verdicts: one for each array.
        findings: the known mistakes whose numbers were found, the one that explains most first.
        problem: why nothing could be compared, in a sentence; "" if something could.
        remarks: what was noticed beside, in sentences.
        course: the cell; None for the character lab.
    """

    name: str
    of: str
    verdicts: tuple[Verdict, ...] = ()
    findings: tuple[Finding, ...] = ()
    problem: str = ""
    remarks: tuple[str, ...] = ()
    course: CourseCell | None = None

    @property
    def right(self) -> bool:
        """Whether every array is right."""
        return not self.problem and all(verdict.right for verdict in self.verdicts)

    @property
    def mistake(self) -> Mistake | None:
        """The known mistake that explains most of what is wrong; None if none does."""
        return self.findings[0].mistake if self.findings else None

    @property
    def cell(self) -> str:
        """The equations to look at as they stand in the catalogue's cell, or in its adjoint."""
        lines = self.mistake.lines if self.mistake else ()
        if not lines or self.course is None:
            return ""
        cell = self.course.cell
        if self._backward:
            found = dict(equations(cell.backward, meaning=unnamed(cell.forward)))
        else:
            found = {one.name: one.expression for one in cell.equations.equations}
        return "\n".join(f"{name} = {written(found[name])}" for name in lines)

    @property
    def formula(self) -> str:
        """`cell` typeset, in LaTeX, in the course's notation; "" if no mistake is known."""
        lines = self.mistake.lines if self.mistake else ()
        if not lines or self.course is None:
            return ""
        cell, state = self.course.cell, self.course.states[0]
        notation = replace(
            COURSE,
            symbols={**COURSE.symbols, "h": state},
            families={"W": COURSE.families["W"], "U": f"W_{{{{{{0}}{state}}}}}"},
            letters={**COURSE.letters, "h": state, "z": "u"},
        )
        if self._backward:
            return latex(_part(cell.backward, lines), notation, cell.forward)
        part = replace(
            cell.equations,
            equations=tuple(one for one in cell.equations.equations if one.name in lines),
            written_order=lines,
        )
        return latex(part, notation)

    @property
    def _backward(self) -> bool:
        return self.of.endswith("backward")

    @property
    def _title(self) -> str:
        name = self.name if self.name == self.of else f"{self.name}, checked as {self.of}"
        if self.problem:
            return f"{name}: nothing to compare"
        right, all_of_them = sum(verdict.right for verdict in self.verdicts), len(self.verdicts)
        if self.right:
            return f"{name}: right"
        return f"{name}: wrong, {right} of {all_of_them} arrays right"

    @property
    def _sentences(self) -> list[tuple[str, str]]:
        """What is said below the table: a label, and a text."""
        said = []
        for finding in self.findings:
            said.append(("The mistake", finding.text))
            said += [("Look at", line) for line in finding.mistake.equation.splitlines()]
            if finding.mistake is self.mistake:
                said += [("In the cell", line) for line in self.cell.splitlines()]
        if not self.findings and any(verdict.worst for verdict in self.verdicts):
            said.append(("The mistake", "no known one gives these numbers."))
        return said + [("Remark", remark) for remark in self.remarks]

    def __bool__(self) -> bool:
        return self.right

    def __str__(self) -> str:
        parts = [self._title]
        if self.problem:
            parts.append(self.problem)
        rows = [
            ("✓" if verdict.right else "✗", verdict.name, _shape(verdict), verdict.text)
            for verdict in self.verdicts
        ]
        if rows:
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            parts.append("\n".join(f"  {_aligned(row, widths)}" for row in rows))
        if said := self._sentences:
            width = max(len(label) for label, _ in said) + 1
            before = [None, *(label for label, _ in said)]
            parts.append(
                "\n".join(
                    f"{'' if label == above else label + ':':<{width}} {text}"
                    for above, (label, text) in zip(before, said, strict=False)
                )
            )
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        parts = [f"**{self._title}**", self.problem]
        rows = [
            f"| {'✓' if verdict.right else '✗'} | {verdict.name} | {_shape(verdict)} "
            f"| {verdict.text} |"
            for verdict in self.verdicts
        ]
        if rows:
            parts.append("\n".join(["| | array | shape | |", "| --- | --- | --- | --- |", *rows]))
        for label, text in self._sentences:
            if label == "Look at":
                parts.append(f"**{label}:** `{text}`")
            elif label != "In the cell":  # typeset below
                parts.append(f"**{label}:** {text}")
        if self.formula:
            parts.append(f"$$\n{self.formula}\n$$")
        return "\n\n".join(part for part in parts if part)

    def _repr_html_(self) -> str:
        color = _GREEN if self.right else _RED
        parts = [f'<p><strong style="color:{color}">{escape(self._title)}</strong></p>']
        if self.problem:
            parts.append(f"<p>{escape(self.problem)}</p>")
        if self.verdicts:
            parts.append(f"<table>{''.join(map(_row, self.verdicts))}</table>")
        parts += [
            f"<p>{escape(label)}: "
            + (
                f"<code>{escape(text)}</code>"
                if label in ("Look at", "In the cell")
                else escape(text)
            )
            + "</p>"
            for label, text in self._sentences
        ]
        return f'<div class="unrolled-check">{"".join(parts)}</div>'


def _shape(verdict: Verdict) -> str:
    return str(verdict.shape) if verdict.shape else ""


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _row(verdict: Verdict) -> str:
    color, sign = (_GREEN, "✓") if verdict.right else (_RED, "✗")
    cells = [f'<td style="color:{color}">{sign}</td>']
    for text in (verdict.name, _shape(verdict), verdict.text):
        cells.append(f'<td style="text-align:left">{escape(text)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _part(program: Program, lines: tuple[str, ...]) -> Program:
    """Some equations of a program, with the values without a name that stand inside them."""
    lines_of_their_own = {name for name, _ in equations(program)}
    needed, waiting = set(lines), list(lines)
    while waiting:
        inside = {*program.by_name[waiting.pop()].operands} & {*program.by_name}
        waiting += inside - needed - lines_of_their_own
        needed |= inside - lines_of_their_own
    instructions = tuple(one for one in program.instructions if one.name in needed)
    return replace(program, instructions=instructions, totals=())
