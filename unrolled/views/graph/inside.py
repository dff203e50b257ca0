"""What happens inside a cell, as a graph: values and operations, and what flows into which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from ...cell import Cell
from ...language.expressions import Apply, Block, Expression, Name, walk, written

# Operation → its sign; numbers that it is applied to stand beside it: 1 −, ÷ 2.
SIGNS: dict[str, str] = {
    "add": "+",
    "sub": "−",
    "mul": "×",
    "div": "÷",
    "neg": "−",
    "pow": "^",
    "lt": "<",
    "le": "≤",
    "gt": ">",
    "ge": "≥",
    "eq": "=",
    "ne": "≠",
    "where": "if",
    "maximum": "max",
    "minimum": "min",
    "sigmoid": "σ",
    "tanh": "tanh",
    "exp": "exp",
    "log": "log",
    "sqrt": "√",
    "abs": "|·|",
    "relu": "relu",
    "softplus": "softplus",
    "sum": "Σ",
    "mean": "mean",
}
_POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LONGEST = 14  # letters of a number that stands in a node


@dataclass(frozen=True)
class Node:
    """Something inside a cell.

    Attributes:
        kind: input, state (of the step before), gate (a sum of products with parameters, and
            mostly a function of it), operation, join, or what leaves: next (a state), output.
        label: what is written in it.
        name: the value of the equations that it is, "" if it has no name.
        told: what it says under the pointer.
    """

    kind: str
    label: str
    name: str = ""
    told: str = ""


@dataclass
class Inside:
    """The inside of a cell.

    Attributes:
        nodes: in an order in which they can be computed.
        edges: (from, to), each a position in `nodes`, none twice.
    """

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, node: Node, sources: Sequence[int] = ()) -> int:
        """Add a node that others flow into, and give its position."""
        self.nodes.append(node)
        here = len(self.nodes) - 1
        self.edges += [(source, here) for source in dict.fromkeys(sources)]
        return here


def inside_of(cell: Cell) -> Inside:
    """One step of a cell as a graph, from its equations."""
    reader = _Reader(cell)
    for equation in cell.equations.equations:
        reader.equation(equation.name, equation.expression)
    for state in reversed(cell.states):
        kind = "output" if state == cell.states[0] else "next"
        told = f"{state}⟨t⟩: " + ("the output" if kind == "output" else "a state")
        reader.graph.add(Node(kind, state, state, told), [reader.values[state]])
    return _joined(reader.graph)


class _Reader:
    """Reads equations, one after the other."""

    def __init__(self, cell: Cell) -> None:
        self.constants = cell.constants
        self.graph = Inside()
        self.values: dict[str, int] = {}
        equations = cell.equations
        parts = [part for e in equations.equations for part in walk(e.expression)]
        used = {part.id for part in parts if isinstance(part, Name)}
        before = {f"{state}_prev": state for state in reversed(cell.states)}
        for name, state in before.items():
            if name in used:
                told = f"{state}⟨t−1⟩: state {state} of the step before"
                self.values[name] = self.graph.add(Node("state", state, name, told))
        for name in (*equations.inputs, "t"):
            if name in used:
                told = f"{name}⟨t⟩: the input" if name != "t" else "t: the number of the step"
                self.values[name] = self.graph.add(Node("input", name, name, told))

    def equation(self, name: str, expression: Expression) -> None:
        told = f"{name} = {written(expression)}"
        here = self._value(expression)
        if here is None:  # of parameters and numbers only
            here = self.graph.add(Node("gate", _short(written(expression))))
        if not self.graph.nodes[here].name:
            self.graph.nodes[here] = replace(self.graph.nodes[here], name=name, told=told)
        self.values[name] = here

    def _value(self, expression: Expression) -> int | None:
        """The node of an expression; None if nothing in it changes from step to step."""
        match expression:
            case Name(id=name):
                return self.values.get(name)  # constants are no values
            case Apply(operation="add" | "sub" | "neg" | "matmul"):
                return self._sum(expression)
            case Apply(operation="mul"):
                return self._sum(expression) if _weighted(expression) else self._product(expression)
            case Apply(operation=operation, arguments=(argument,)):
                return self._function(operation, argument, expression)
            case Apply():
                return self._operation(expression)
        return None

    def _function(self, operation: str, argument: Expression, whole: Expression) -> int | None:
        """A function: of a sum with parameters a gate, which adds up all that flows into it."""
        terms = list(_terms(argument))
        if any(_weighted(term) for _, term in terms):
            sources = [node for _, term in terms for node in self._flows(term)]
            return self._node("gate", SIGNS[operation], sources, whole)
        source = self._value(argument)
        if source is None:
            return None
        return self._node("operation", SIGNS[operation], [source], whole)

    def _flows(self, term: Expression) -> list[int]:
        """What flows into a gate from one of its terms."""
        vector = _vector(term) if _weighted(term) else term
        node = None if vector is None else self._value(vector)
        return [] if node is None else [node]

    def _sum(self, expression: Expression) -> int | None:
        """A sum: what has parameters goes through one node, which the others are added to."""
        terms = list(_terms(expression))
        plus = [term for positive, term in terms if positive]
        minus = [term for positive, term in terms if not positive]
        added, number = self._added(plus)
        taken, other = self._added(minus)
        if not minus:
            return self._combined("+", added, number, expression)
        if not taken:
            label = f"+ {number} − {other}" if number else f"− {other}"
            return self._node("operation", label, added, expression) if added else None
        right = self._combined("+", taken, other, expression)
        left = self._combined("+", added, number, expression)
        label = f"{number} −" if number and left is None else "−"
        sources = [node for node in (left, right) if node is not None]
        return self._node("operation", label, sources, expression)

    def _added(self, terms: list[Expression]) -> tuple[list[int], str]:
        """The nodes of terms, those with parameters as one; and what never changes, as text."""
        weighted = [term for term in terms if _weighted(term)]
        sources = [node for term in weighted for node in self._flows(term)]
        fixed = [term for term in terms if term not in weighted] if sources else terms
        found = []
        if sources:
            found.append(self._node("gate", _families(weighted), sources, _sum_of(weighted)))
        texts = []
        for term in fixed:
            node = None if term in weighted else self._value(term)
            if node is None:
                texts.append(_short(written(term)))
            else:
                found.append(node)
        return found, " + ".join(texts)

    def _combined(self, sign: str, nodes: list[int], number: str, whole: Expression) -> int | None:
        if not nodes:
            return None
        if len(nodes) == 1 and not number:
            return nodes[0]
        label = f"{sign} {number}" if number else sign
        return self._node("operation", label, nodes, whole)

    def _product(self, expression: Expression) -> int | None:
        factors = list(_factors(expression))
        nodes = [self._value(factor) for factor in factors]
        numbers = [_short(written(f, 6)) for f, n in zip(factors, nodes, strict=True) if n is None]
        sources = [node for node in nodes if node is not None]
        if not sources:
            return None
        return self._node("operation", " ".join([*numbers, "×"]), sources, expression)

    def _operation(self, expression: Apply) -> int | None:
        sign = SIGNS[expression.operation]
        nodes = [self._value(argument) for argument in expression.arguments]
        sources = [node for node in nodes if node is not None]
        if not sources:
            return None
        label = sign
        if len(nodes) == 2 and None in nodes:
            number = _short(written(expression.arguments[nodes.index(None)], 6))
            label = f"{number} {sign}" if nodes[0] is None else f"{sign} {number}"
            if sign == "^" and nodes[1] is None and number.isdecimal():
                label = f"( ){number.translate(_POWERS)}"
        return self._node("operation", label, sources, expression)

    def _node(self, kind: str, label: str, sources: list[int], told: Expression) -> int:
        return self.graph.add(Node(kind, label, told=written(told)), sources)


def _terms(expression: Expression, positive: bool = True) -> Iterator[tuple[bool, Expression]]:
    """The terms of a sum, each with whether it is added or taken away."""
    match expression:
        case Apply(operation="add" | "sub" as operation, arguments=(left, right)):
            yield from _terms(left, positive)
            yield from _terms(right, positive == (operation == "add"))
        case Apply(operation="neg", arguments=(inner,)):
            yield from _terms(inner, not positive)
        case _:
            yield positive, expression


def _factors(expression: Expression) -> Iterator[Expression]:
    """The factors of a product unit by unit."""
    match expression:
        case Apply(operation="mul", arguments=(left, right)):
            yield from _factors(left)
            yield from _factors(right)
        case _:
            yield expression


def _weighted(term: Expression) -> bool:
    """Whether a term is parameters, or something times parameters."""
    match term:
        case Block() | Apply(operation="matmul"):
            return True
        case Apply(operation="mul"):
            return any(isinstance(factor, Block) for factor in _factors(term))
    return False


def _vector(term: Expression) -> Expression | None:
    """What the parameters of a term are multiplied with."""
    match term:
        case Apply(operation="matmul", arguments=(_, vector)):
            return vector
        case Apply(operation="mul"):
            others = [factor for factor in _factors(term) if not isinstance(factor, Block)]
            product = others[0] if others else None
            for factor in others[1:]:
                product = Apply("mul", (product, factor)) if product is not None else factor
            return product
    return None


def _families(terms: Sequence[Expression]) -> str:
    """The families of parameters that some terms are multiplied with."""
    found: dict[str, None] = {}
    for term in terms:
        matrix = isinstance(term, Apply) and term.operation == "matmul"
        factors = term.arguments[:1] if matrix else _factors(term)  # type: ignore[union-attr]
        blocks = [factor for factor in factors if isinstance(factor, Block) and factor is not term]
        found.update(dict.fromkeys(block.family for block in blocks))
    return ", ".join(found)


def _sum_of(terms: Sequence[Expression]) -> Expression:
    whole = terms[0]
    for term in terms[1:]:
        whole = Apply("add", (whole, term))
    return whole


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _joined(graph: Inside) -> Inside:
    """The graph with one node for values that several gates read together: [h, x]."""
    sources = [n for n, node in enumerate(graph.nodes) if node.kind in ("input", "state")]
    read = {
        gate: frozenset(a for a, b in graph.edges if b == gate and a in sources)
        for gate, node in enumerate(graph.nodes)
        if node.kind == "gate"
    }
    together = {a & b for a, b in combinations(read.values(), 2) if len(a & b) > 1}
    if not together:
        return graph
    readers = {group: [gate for gate, of in read.items() if group <= of] for group in together}
    group = max(together, key=lambda one: ((len(one) - 1) * (len(readers[one]) - 1), sorted(one)))
    names = [graph.nodes[source].told.partition(":")[0] for source in sorted(group)]
    join = Node("join", "", "", f"[{', '.join(names)}]: read together")
    found = Inside(list(graph.nodes[: len(sources)]))
    here = found.add(join, sorted(group))
    found.nodes += graph.nodes[len(sources) :]
    found.edges += [(here, gate + 1) for gate in readers[group]]
    for a, b in graph.edges:
        if not (a in group and b in readers[group]):
            found.edges.append((a if a < here else a + 1, b + 1))
    return found
