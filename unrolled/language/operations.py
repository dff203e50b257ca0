"""The operations of the language, on one page.

A cell's equations, their derivative and every kernel are made of these and nothing else.
Whoever gives them a meaning does it with one line per operation in a table of its own: the
derivative (`unrolled.derivative`), the formula (`unrolled.views.latex`), and each backend.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One operation on numbers, unit by unit, or across units, or one of the two products.

    Attributes:
        name: its name in programs and tables.
        arity: how many arguments it takes.
        written: how it is written; `{0}`, `{1}` … stand for its arguments.
        precedence: binding strength of what is written (Python's order; 9 needs no brackets).
        truth: whether its result is a truth value, good as the first argument of `where` only.
        cheap: whether to compute it again costs less than to keep its result in memory.
    """

    name: str
    arity: int
    written: str
    precedence: int = 9
    truth: bool = False
    cheap: bool = True


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("same", 1, "{0}"),
        # arithmetic
        Operation("add", 2, "{0} + {1}", 4),
        Operation("sub", 2, "{0} - {1}", 4),
        Operation("mul", 2, "{0} * {1}", 5),
        Operation("div", 2, "{0} / {1}", 5),
        Operation("neg", 1, "-{0}", 6),
        Operation("pow", 2, "{0} ** {1}", 7, cheap=False),
        # comparison and choice
        Operation("lt", 2, "{0} < {1}", 3, truth=True),
        Operation("le", 2, "{0} <= {1}", 3, truth=True),
        Operation("gt", 2, "{0} > {1}", 3, truth=True),
        Operation("ge", 2, "{0} >= {1}", 3, truth=True),
        Operation("eq", 2, "{0} == {1}", 3, truth=True),
        Operation("ne", 2, "{0} != {1}", 3, truth=True),
        Operation("where", 3, "where({0}, {1}, {2})"),
        Operation("maximum", 2, "maximum({0}, {1})"),
        Operation("minimum", 2, "minimum({0}, {1})"),
        # functions of one number
        Operation("sigmoid", 1, "sigmoid({0})", cheap=False),
        Operation("tanh", 1, "tanh({0})", cheap=False),
        Operation("exp", 1, "exp({0})", cheap=False),
        Operation("log", 1, "log({0})", cheap=False),
        Operation("sqrt", 1, "sqrt({0})", cheap=False),
        Operation("abs", 1, "abs({0})"),
        Operation("relu", 1, "relu({0})"),
        Operation("softplus", 1, "softplus({0})", cheap=False),
        # Across the units of a vector, which make one number of it.
        Operation("sum", 1, "sum({0})", cheap=False),
        Operation("mean", 1, "mean({0})", cheap=False),
        # Products of a parameter matrix and a vector of the step. The second one, with the
        # transposed matrix, is what the derivative of the first one needs; it takes any number
        # of pairs and adds up their products.
        Operation("matmul", 2, "{0} @ {1}", 5, cheap=False),
        Operation("matmul_t", 2, "{0}ᵀ @ {1}", 5, cheap=False),
    )
}

PRODUCTS = frozenset({"matmul", "matmul_t"})
REDUCTIONS = frozenset({"sum", "mean"})
ELEMENTWISE = frozenset(OPERATIONS) - PRODUCTS - REDUCTIONS

# The functions that equations may call by name.
FUNCTIONS = frozenset(
    name for name, operation in OPERATIONS.items() if operation.written.startswith(name + "(")
)
