"""A program for people: what goes in, the equations, what comes out, sizes at the side.

A value without a name of its own that is used once is written inside its user, so that a cell
prints as its equations, and its derivative as a person would write it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from .language.expressions import Expression, written
from .program import Program

_WIDTH = 84  # longer lines have their size right behind them

Row = tuple[str, str]  # text, and what stands at its side


def listing(program: Program, named: Collection[str] = ()) -> str:
    """The lines of a program, sizes aligned at the side.

    Args:
        program: a forward or an adjoint program.
        named: values that get an equation of their own whatever their names look like.
    """
    rows = [*_before(program), *_equations(program, named), *_after(program)]
    width = min(max(len(text) for text, _ in rows), _WIDTH)
    title = f"{program.name}: one step" + (
        ", from the last to the first" if program.adjoint else ""
    )
    return "\n".join([title, *(f"{t:<{width}}  # {side}" if side else t for t, side in rows)])


def equations(
    program: Program,
    named: Collection[str] = (),
    meaning: Mapping[str, Expression] | None = None,
) -> Iterator[tuple[str, Expression]]:
    """The equations of a program as a person would write them: name and right side.

    Args:
        program: a forward or an adjoint program.
        named: values that get an equation of their own whatever their names look like.
        meaning: what to write for names that the program is given.
    """
    inside = _written_in_their_users(program) - set(named)
    known = dict(meaning or {})
    for instruction in program.instructions:
        expression = instruction.expression(known)
        if instruction.name in inside:
            known[instruction.name] = expression
        else:
            yield instruction.name, expression


def unnamed(program: Program) -> dict[str, Expression]:
    """What stands behind each name that `lower` made up, in terms of names that people gave."""
    found: dict[str, Expression] = {}
    for instruction in program.instructions:
        if instruction.name.startswith("_"):
            found[instruction.name] = instruction.expression(found)
    return found


def _before(program: Program) -> Iterator[Row]:
    for group in program.inputs:
        yield from _together("given", group, program.sizes)
    received = [received for received, _ in program.carried]
    yield from _together("received", received, program.sizes)
    shapes = {block: f"({', '.join(shape)})" for block, shape in program.shapes.items()}
    for blocks in program.families.values():
        yield from _together("family", blocks, shapes)


def _equations(program: Program, named: Collection[str]) -> Iterator[Row]:
    for name, expression in equations(program, named):
        yield f"    {name} = {written(expression)}", program.sizes[name]


def _after(program: Program) -> Iterator[Row]:
    pairs = ", ".join(f"{handed_on} as {received}" for received, handed_on in program.carried)
    yield f"  hands on  {pairs}", ""
    for group in program.outputs:
        yield from _together("gives", group, program.sizes)
    for total in program.totals:
        yield f"  sums up   {total}", f"({', '.join(program.shapes[total.parameter])})"


def _written_in_their_users(program: Program) -> set[str]:
    """What has a generated name and is used once, by another instruction."""
    times = Counter(name for instruction in program.instructions for name in instruction.values)
    inside = set()
    for instruction in program.instructions:
        for name in instruction.values:
            generated = name.startswith(("_", "d_") if program.adjoint else "_")
            if generated or name == f"{instruction.name}_pre":
                inside.add(name)
    once = {name for name in inside if times[name] == 1}
    return (once & program.by_name.keys()) - program.wanted


def _together(title: str, names: Iterable[str], sizes: Mapping[str, str]) -> Iterator[Row]:
    """A line for each size, with the values that have it."""
    several: dict[str, list[str]] = {}
    for name in names:
        several.setdefault(sizes[name], []).append(name)
    for size, values in several.items():
        yield f"  {title:<9} {', '.join(values)}", size
