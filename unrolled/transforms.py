"""Transforms: a cell goes in, and a cell with something more in its equations comes out.

What comes out is a cell like any other: it prints, differentiates and gets its kernels. Random
values are drawn in training and have their means in evaluation (`Cell.expected`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .cell import Cell
from .errors import InputError
from .language.equations import Draw, Equation, Equations
from .language.expressions import Apply, Block, Expression, Name, Number, walk
from .language.operations import PRODUCTS, REDUCTIONS


def recurrent_dropout(cell: Cell, p: float) -> Cell:
    """Drop what the recurrent products read: one mask a sequence, of each state (Gal 2016).

    The mask stands on the operand of the product, `U.i @ (m_h * h_prev)`, and never on a state that
    is carried on, which would shrink or grow with the length of the sequence. What is kept is
    divided by 1 − p.

    Args:
        cell: any cell with a product that reads what comes from the step before.
        p: the probability of dropping a unit.

    Raises:
        InputError: if p is no probability below 1, or there is no such product.

    Source: Gal & Ghahramani 2016, "A theoretically grounded application of dropout in RNNs".
    """
    _check_cell("recurrent_dropout", cell)
    _check_probability("recurrent_dropout", p)
    if not p:
        return cell
    equations, draws = cell.equations, _Names(cell.equations)
    unit_by_unit = _follows_unit_by_unit(equations)

    def masked(expression: Expression) -> Expression:
        if not isinstance(expression, Apply):
            return expression
        arguments = tuple(masked(argument) for argument in expression.arguments)
        if expression.operation == "matmul":
            block, vector = arguments
            names = map(_id, _unit_by_unit(vector))
            states = sorted({unit_by_unit[name] for name in names if name in unit_by_unit})
            if states and not any(
                isinstance(part, Apply) and part.operation == "matmul" for part in walk(vector)
            ):
                mask = draws.named(f"m_{states[0]}", Draw("dropout", p))
                arguments = block, Apply("mul", (Name(mask), vector))
        return replace(expression, arguments=arguments)

    changed = tuple(replace(one, expression=masked(one.expression)) for one in _written(equations))
    if not draws.made:
        raise InputError(
            f"cell '{cell.name}' has no product that reads what comes from the step before, so "
            "there is nothing for recurrent_dropout to drop."
        )
    return _made(equations, changed, draws.made)


def candidate_dropout(cell: Cell, p: float, name: str | None = None) -> Cell:
    """Drop what is about to be written into the memory, anew at every step (Semeniuta 2016).

    As in the paper, what is kept stays as it is, and in evaluation the candidate is multiplied by
    1 − p; so a state that is bounded by its candidate stays so.

    Args:
        cell: any cell with a candidate.
        p: the probability of dropping a unit.
        name: the candidate; `g` or `n` if None, whichever the cell has.

    Raises:
        InputError: if p is no probability below 1, or the cell has no such value.

    Source: Semeniuta, Severyn & Barth 2016, "Recurrent dropout without memory loss".
    """
    _check_cell("candidate_dropout", cell)
    _check_probability("candidate_dropout", p)
    given = [one.name for one in cell.equations.equations]
    found = [letter for letter in ("g", "n") if letter in given] if name is None else [name]
    if len(found) != 1 or found[0] not in given:
        raise InputError(
            f"candidate_dropout needs the name of the candidate of cell '{cell.name}': one of "
            f"{', '.join(given)}."
        )
    if not p:
        return cell
    (candidate,) = found
    names = _Names(cell.equations)
    mask = names.named(f"m_{candidate}", Draw("bernoulli", 1 - p, "step"))
    whole = names.fresh(f"{candidate}_whole")
    made = {candidate: Apply("mul", (Name(mask), Name(whole)))}
    changed = _replaced(cell.equations, {candidate: whole}, made)
    return _made(cell.equations, changed, names.made)


def zoneout(cell: Cell, p: float | Mapping[str, float]) -> Cell:
    """Let units keep their state of the step before, drawn anew at every step (Krueger 2017).

    In evaluation each state is the mean of both: p times the one before, and 1 − p times the new.

    Args:
        cell: any cell.
        p: the probability of keeping, for all states, or state → probability for some:
            `zoneout(lstm, {"c": 0.5, "h": 0.05})`.

    Raises:
        InputError: if a p is no probability below 1, or no state has such a name.

    Source: Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden
    activations".
    """
    _check_cell("zoneout", cell)
    chosen = dict(p) if isinstance(p, Mapping) else dict.fromkeys(cell.states, p)
    for state, probability in chosen.items():
        _check_state("zoneout", cell, state)
        _check_probability("zoneout", probability)
    names, before, made = _Names(cell.equations), {}, {}
    for state, probability in chosen.items():
        if probability:
            keep = Name(names.named(f"keep_{state}", Draw("bernoulli", probability, "step")))
            before[state] = names.fresh(f"{state}_new")
            old = Apply("mul", (keep, Name(f"{state}_prev")))
            new = Apply("mul", (Apply("sub", (Number(1.0), keep)), Name(before[state])))
            made[state] = Apply("add", (old, new))
    if not made:
        return cell
    # What else is made of a state at this step is made of the new one, as in the paper.
    changed = _replaced(cell.equations, before, made, everywhere=True)
    return _made(cell.equations, changed, names.made)


def layer_norm(cell: Cell, epsilon: float = 1e-5) -> Cell:
    """Normalise over the units what the gates are made of (Ba, Kiros & Hinton 2016).

    A norm takes a vector to mean 0 and variance 1 over its units, and gives each unit a gain that
    is learned and begins at 1. Every product with a matrix has one of its own, of the input
    (`W.i @ x`) and of the state (`U.i @ h_prev`) apart, gate by gate; what is added to them, the
    bias, is their shift. Where the output is made of another state of the same step, as h of c, it
    reads that state through a norm with a gain and a shift; the state that is carried on is left
    as it is.

    Args:
        cell: any cell with a product.
        epsilon: what is added to a variance.

    Raises:
        InputError: if epsilon is not above 0, or the cell has no product.

    Source: Ba, Kiros & Hinton 2016, "Layer normalization", equations 20 to 22, with each gate's
    units by themselves.
    """
    _check_cell("layer_norm", cell)
    _check_positive("layer_norm needs an epsilon", epsilon)
    norms = _Norms(cell.equations, epsilon)
    output, *others = cell.states

    def normed(expression: Expression) -> Expression:
        if not isinstance(expression, Apply):
            return expression
        arguments = tuple(normed(argument) for argument in expression.arguments)
        changed = replace(expression, arguments=arguments)
        match expression:
            case Apply(operation="matmul", arguments=(Block(family=family, block=block), _)):
                return norms.gained(changed, f"{family}_{block}")
        return changed

    def reading(expression: Expression) -> Expression:
        if isinstance(expression, Name) and expression.id in others:
            return norms.gained(expression, expression.id, shifted=True)
        if isinstance(expression, Apply):
            arguments = tuple(reading(argument) for argument in expression.arguments)
            return replace(expression, arguments=arguments)
        return expression

    changed: list[Equation] = []
    for one in _written(cell.equations):
        right = reading(one.expression) if one.name == output else one.expression
        changed += norms.in_front_of(replace(one, expression=normed(right)))
    if not norms.families:
        raise InputError(f"cell '{cell.name}' has no product, so layer_norm has nothing to do.")
    equations = replace(
        cell.equations,
        families=(*cell.equations.families, *norms.families),
        initial={**cell.equations.initial, **norms.initial},
    )
    return _made(equations, tuple(changed), {})


class _Norms:
    """The equations of norms, each vector normalised once."""

    def __init__(self, equations: Equations, epsilon: float) -> None:
        self._names = _Names(equations)
        self._epsilon = Number(float(epsilon))
        self._mine: dict[tuple[Expression, str], Expression] = {}
        self.gain = self._names.fresh("gain")
        self.shift = self._names.fresh("shift")
        self._waiting: list[Equation] = []
        self.shifts = False

    def gained(self, vector: Expression, wish: str, shifted: bool = False) -> Expression:
        """`gain * (vector − mean) / √(variance + ε)`, with `+ shift` where that is wanted."""
        key = vector, wish
        if key not in self._mine:
            value = vector
            if isinstance(vector, Apply):
                value = self._equation(wish, vector)
            centred = self._equation(f"{wish}_centred", Apply("sub", (value, _mean(value))))
            variance = _mean(Apply("mul", (centred, centred)))
            deviation = Apply("sqrt", (Apply("add", (variance, self._epsilon)),))
            scale = Apply("div", (Number(1.0), deviation))
            normed = self._equation(f"{wish}_normed", Apply("mul", (centred, scale)))
            self._mine[key] = Apply("mul", (Block(self.gain, wish), normed))
            if shifted:
                self._mine[key] = Apply("add", (self._mine[key], Block(self.shift, wish)))
                self.shifts = True
        return self._mine[key]

    @property
    def families(self) -> tuple[str, ...]:
        """The families of parameters that the norms need."""
        if not self._mine:
            return ()
        return (self.gain, self.shift) if self.shifts else (self.gain,)

    @property
    def initial(self) -> dict[str, float]:
        """Where they begin: gains at 1, shifts at 0."""
        return dict(zip(self.families, (1.0, 0.0), strict=False))

    def in_front_of(self, equation: Equation) -> list[Equation]:
        """The equations that were made for this one, and it."""
        found, self._waiting = [*self._waiting, equation], []
        return found

    def _equation(self, wish: str, right: Expression) -> Name:
        name = self._names.fresh(wish)
        self._waiting.append(Equation(name, right))
        return Name(name)


def _mean(vector: Expression) -> Expression:
    return Apply("mean", (vector,))


def clipped(cell: Cell, limit: float, state: str | None = None) -> Cell:
    """Keep a state between −limit and limit (Sak, Senior & Beaufays 2014).

    Args:
        cell: any cell.
        limit: how large a unit may become.
        state: which; the cell state of a cell that has two, and the only one of others, if None.

    Raises:
        InputError: if the limit is not above 0, or there is no such state.
    """
    _check_cell("clipped", cell)
    _check_positive("clipped needs a limit", limit)
    chosen = cell.states[-1] if state is None else state
    _check_state("clipped", cell, chosen)
    free = _Names(cell.equations).fresh(f"{chosen}_free")
    least = Apply("maximum", (Name(free), Number(-float(limit))))
    made = {chosen: Apply("minimum", (least, Number(float(limit))))}
    return _made(cell.equations, _replaced(cell.equations, {chosen: free}, made), {})


class _Names:
    """Names that the equations do not have yet, and the random values made so far."""

    def __init__(self, equations: Equations) -> None:
        self._taken = {
            *equations.inputs,
            *equations.families,
            *equations.constants,
            *equations.draws,
            *(equation.name for equation in equations.equations),
            *(f"{state}_prev" for state in equations.remembered),
        }
        self._mine: dict[str, str] = {}  # wish → name
        self.made: dict[str, Draw] = {}

    def fresh(self, wish: str) -> str:
        name, count = wish, 2
        while name in self._taken:
            name, count = f"{wish}_{count}", count + 1
        self._taken.add(name)
        return name

    def named(self, wish: str, draw: Draw) -> str:
        """The name of a random value; asked again for the same one, the same name."""
        if wish not in self._mine:
            self._mine[wish] = self.fresh(wish)
            self.made[self._mine[wish]] = draw
        return self._mine[wish]


def _id(expression: Expression) -> str:
    return expression.id if isinstance(expression, Name) else ""


def _follows_unit_by_unit(equations: Equations) -> dict[str, str]:
    """Name → the state of the step before that it follows from, with no product between.

    A state of this step is left out: what reads it reads no step before.
    """
    found = {f"{state}_prev": state for state in equations.remembered}
    for equation in equations.equations:
        for part in _unit_by_unit(equation.expression):
            if _id(part) in found and equation.name not in equations.states:
                found.setdefault(equation.name, found[_id(part)])
    return found


def _unit_by_unit(expression: Expression) -> Iterator[Expression]:
    """The expression and those of its parts whose units it is made of, one by one."""
    yield expression
    if isinstance(expression, Apply) and expression.operation not in PRODUCTS | REDUCTIONS:
        for argument in expression.arguments:
            yield from _unit_by_unit(argument)


def _written(equations: Equations) -> Iterator[Equation]:
    """The equations in the order in which they were written."""
    by_name = {equation.name: equation for equation in equations.equations}
    return (by_name[name] for name in equations.written_order)


def _replaced(
    equations: Equations,
    before: Mapping[str, str],
    made: Mapping[str, Expression],
    everywhere: bool = False,
) -> tuple[Equation, ...]:
    """Equations in which some names get a new right side, made of what they were.

    Args:
        equations: the equations.
        before: name → what the value that it was is called from now on.
        made: name → its new right side.
        everywhere: whether the other equations go on using what it was.
    """

    def renamed(expression: Expression) -> Expression:
        if isinstance(expression, Name):
            return replace(expression, id=before.get(expression.id, expression.id))
        if isinstance(expression, Apply):
            return replace(expression, arguments=tuple(map(renamed, expression.arguments)))
        return expression

    found = []
    for one in _written(equations):
        right = renamed(one.expression) if everywhere else one.expression
        found.append(Equation(before.get(one.name, one.name), right))
        if one.name in made:
            found.append(Equation(one.name, made[one.name]))
    return tuple(found)


def _made(equations: Equations, changed: tuple[Equation, ...], draws: Mapping[str, Draw]) -> Cell:
    """A cell of other equations, read again, so that they are checked and sorted."""
    remembered = dict.fromkeys(equations.remembered)
    for equation in changed:
        for part in walk(equation.expression):
            name = _id(part)
            if name.endswith("_prev"):
                remembered.setdefault(name.removesuffix("_prev"))
    other = replace(
        equations,
        remembered=tuple(remembered),
        draws={**equations.draws, **draws},
        equations=changed,
        written_order=tuple(equation.name for equation in changed),
    )
    return Cell.parse(other.text)


def _check_cell(what: str, cell: Cell) -> None:
    if not isinstance(cell, Cell):
        raise InputError(
            f"{what} takes a cell, such as unrolled.cells.lstm; found {type(cell).__name__}."
        )


def _check_positive(what: str, number: float) -> None:
    kind = isinstance(number, int | float) and not isinstance(number, bool)
    if not kind or not 0 < number < float("inf"):
        raise InputError(f"{what} above 0; found {number!r}.")


def _check_probability(what: str, p: float) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < 1:
        raise InputError(f"{what} needs a probability from 0 to below 1; found {p!r}.")


def _check_state(what: str, cell: Cell, state: str) -> None:
    if state not in cell.states:
        raise InputError(
            f"{what} names {state}, which is no state of cell '{cell.name}'; its states are "
            f"{', '.join(cell.states)}."
        )
