"""Which gradients of vectors of parameters are added up together."""

from ...program import Total
from ..blocks import lying_together
from .layout import Layout


def sums_together(layout: Layout) -> list[list[Total]]:
    """Sums in groups whose vectors, and whose parameters, lie side by side.

    A parameter that has a sum already is in a group of its own. What the loop adds up comes last,
    because it is there at the end of the loop only.
    """
    groups: list[list[Total]] = []
    seen: set[str] = set()
    joins = False
    in_loop, program = layout.loop_sums, layout.schedule.program
    for total in sorted(layout.schedule.sums, key=lambda total: total in in_loop):
        fresh = total.parameter not in seen and total not in in_loop
        group = [*groups[-1], total] if groups else [total]
        vectors = tuple(one.factors[0] for one in group)
        if (
            fresh
            and joins
            and len(lying_together(program, [one.parameter for one in group])) == 1
            and layout.find(vectors, steps=True) is not None
        ):
            groups[-1] = group
        else:
            groups.append([total])
            joins = fresh
        seen.add(total.parameter)
    return groups
