r"""Equations and programs as they are typeset, in LaTeX.

A value at this step is written `i_t`, one of the step before `h_{t-1}`, a block `W_i`, a product
with a matrix by writing them side by side, and one unit by unit with `\odot`. Of the adjoint, `dh`
is the gradient of h, and `dh^next` the part of it that the step after hands back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import InputError
from ..language.equations import Equations
from ..language.expressions import Apply, Block, Expression, Name, Number
from ..language.operations import OPERATIONS
from ..listing import equations, unnamed
from ..program import STEP_NUMBER, Program, is_count

# Operation → how it is typeset; the arguments are in braces of LaTeX where they need them.
TYPESET: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": r"{0} \odot {1}",
    "div": r"\frac{{{0}}}{{{1}}}",
    "neg": "-{0}",
    "pow": "{{{0}}}^{{{1}}}",
    "lt": "{0} < {1}",
    "le": r"{0} \le {1}",
    "gt": "{0} > {1}",
    "ge": r"{0} \ge {1}",
    "eq": "{0} = {1}",
    "ne": r"{0} \ne {1}",
    "where": r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
    "maximum": r"\max({0}, {1})",
    "minimum": r"\min({0}, {1})",
    "sigmoid": r"\sigma({0})",
    "tanh": r"\tanh({0})",
    "exp": r"\exp({0})",
    "log": r"\log({0})",
    "sqrt": r"\sqrt{{{0}}}",
    "abs": r"\lvert {0} \rvert",
    "relu": r"\operatorname{{relu}}({0})",
    "softplus": r"\operatorname{{softplus}}({0})",
    "sum": r"\operatorname{{sum}}({0})",
    "mean": r"\operatorname{{mean}}({0})",
    "matmul": "{0} {1}",
    "matmul_t": r"{0}^{{\top}} {1}",
}

# Operations that need no brackets around them, and whose arguments need none.
_CLOSED = {
    *("div", "where", "maximum", "minimum", "sigmoid", "tanh", "exp", "log", "sqrt", "abs"),
    *("relu", "softplus", "sum", "mean"),
}

_GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi"),
    *("omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
}


@dataclass(frozen=True)
class Notation:
    r"""How the names of values and parameters are written: data, so that anybody can add one.

    Attributes:
        symbols: name of a value → what is written for it; its own letters if it is missing.
        families: family → what is written for a block of it, `{0}` being the block's letter.
        letters: name of a block → its letter, where that is not the block's own.
        above: whether the step stands above, in pointed brackets, and not below.
        gradient: what is written for the gradient with respect to `{0}`.
    """

    symbols: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    letters: Mapping[str, str] = field(default_factory=dict)
    above: bool = False
    gradient: str = r"\mathrm{{d}}{0}"

    def value(self, name: str, step: str, *marks: str) -> str:
        """A value at a step; `marks` stand above it, behind those that its name has."""
        letter, _, mark = name.partition("_")
        if name in self.symbols:
            symbol, mark = self.symbols[name], ""
        elif not letter:  # made up for a part without a name
            symbol, mark, marks = "u", "", (rf"\#{mark}", *marks)
        else:
            symbol = self.symbols.get(letter) or symbol_of(letter)
        raised = ",".join([*([rf"\mathrm{{{mark.replace('_', ',')}}}"] if mark else []), *marks])
        raised += rf"\langle {step}\rangle" if self.above else ""
        lowered = "" if self.above else f"_{{{step}}}"
        return symbol + (f"^{{{raised}}}" if raised else "") + lowered

    def block(self, name: str) -> str:
        """A block of parameters, by its name: `W.i`."""
        family, _, block = name.partition(".")
        letter = self.letters.get(block) or symbol_of(block)
        if family in self.families:
            return self.families[family].format(letter)
        symbol, _, mark = family.partition("_")
        raised = rf"^{{{symbol_of(mark)}}}" if mark else ""
        return f"{symbol_of(symbol)}{raised}_{{{letter}}}"


# How papers and this package write: i_t, h_{t-1}, W_i x_t + U_i h_{t-1}.
FIELD = Notation()

# How the well-known course writes (Ng 2018): the output is a, gates are Γ, the candidate is c̃.
# Its update gate Γ_u replaces, where the z of our GRUs keeps: z is 1 − Γ_u, so it has a bar.
COURSE = Notation(
    symbols={
        "h": "a",
        "i": r"\Gamma_i",
        "f": r"\Gamma_f",
        "o": r"\Gamma_o",
        "r": r"\Gamma_r",
        "z": r"\overline{\Gamma}_u",
        "g": r"\tilde{c}",
        "n": r"\tilde{c}",
    },
    families={"W": "W_{{{0}x}}", "U": "W_{{{0}a}}"},
    letters={"h": "a", "g": "c", "n": "c"},
    above=True,
    gradient="d{0}",
)


def latex(
    what: Equations | Program, notation: Notation = FIELD, forward: Program | None = None
) -> str:
    r"""Equations, or a program, as one `aligned` environment.

    Args:
        what: the equations of a cell as they were written (`cell.equations`), or a forward or an
            adjoint program (`cell.forward`, `cell.backward`), written as `listing` writes it.
        notation: how names are written: `FIELD` (i_t), `COURSE` (Γ_i^⟨t⟩), or one of your own.
        forward: of an adjoint program the forward one; then what that computed on the way,
            such as tanh(c), is written out where the adjoint uses it.

    Returns:
        LaTeX for math mode; it needs the package amsmath. Sums over t are those of one sequence:
        over a batch they run over its rows too.

    Raises:
        InputError: if it is neither.
    """
    if not isinstance(what, Equations | Program):
        raise InputError(
            "a formula is written of cell.equations, cell.forward or cell.backward; "
            f"found {type(what).__name__}."
        )
    if isinstance(what, Equations):
        by_name = {equation.name: equation.expression for equation in what.equations}
        pairs = [(name, by_name[name]) for name in what.written_order]
        names = _Names(notation, constants=frozenset(what.constants))
    else:
        pairs = _assignments(what, forward)
        names = _Names.of(what, notation)
    writer = Writer(names, plain=names.is_number)
    lines = [f"{names(name)} &= {writer.expression(right)}" for name, right in pairs]
    if isinstance(what, Program):
        lines += _totals(what, names)
    body = " \\\\\n".join(f"    {line}" for line in lines)
    return "\n".join([r"\begin{aligned}", body, r"\end{aligned}"])


def _assignments(program: Program, forward: Program | None) -> list[tuple[str, Expression]]:
    """The equations of a program, and with its forward program no name that nobody gave.

    A part without a name keeps its stand-in where the adjoint has an equation for its gradient, or
    a total needs it; then the part's own equation is told first.
    """
    if forward is None:
        return list(equations(program))
    parts = unnamed(forward)
    needed = {factor for total in program.totals for factor in total.factors}
    needed |= {name[1:] for name, _ in equations(program) if name.startswith("d")}
    meaning = {name: part for name, part in parts.items() if name not in needed}
    told = [(name, part) for name, part in parts.items() if name in needed]
    pairs = equations(program, meaning=meaning)
    return told + [(name, right) for name, right in pairs if name not in parts]


def _totals(program: Program, names: "_Names") -> list[str]:
    """The gradients of the parameters, sums over the steps."""
    terms: dict[str, list[str]] = {}
    for total in program.totals:
        first, *second = (names(factor) for factor in total.factors)
        outer = [rf"{_braced(name)}^{{\top}}" for name in second]
        terms.setdefault(total.parameter, []).append(" ".join([first, *outer]))
    lines = []
    for parameter, parts in terms.items():
        inside = " + ".join(parts)
        inside = rf"\left({inside}\right)" if len(parts) > 1 else inside
        left = names.notation.gradient.format(names.notation.block(parameter))
        lines.append(rf"{left} &= \sum_{{t}} {inside}")
    return lines


@dataclass(frozen=True)
class _Names:
    """What is written for a name of a program, or of equations.

    `carried` and `given` are the gradients that an adjoint receives, each with its value.
    """

    notation: Notation
    constants: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()  # whose gradient is called d<value>
    special: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program, notation: Notation) -> "_Names":
        if not program.adjoint:
            return cls(notation)
        special = {}
        for received, handed_on in program.carried:
            state = received.removeprefix("d").removesuffix("_next")
            special[received] = (state, "t", "next")
            special[handed_on] = (state, "t-1", "next")
        for given in program.inputs[-1]:
            special[given] = (given.removeprefix("d").removesuffix("_out"), "t", "out")
        return cls(notation, values=frozenset(program.sizes), special=special)

    def __call__(self, name: str) -> str:
        if self.is_number(name):
            return symbol_of(name.strip("|"))
        if "." in name:
            return self.notation.block(name)
        if name in self.special:
            value, step, mark = self.special[name]
            inside = self.notation.value(value, step, rf"\mathrm{{{mark}}}")
            return self.notation.gradient.format(inside)
        if name.startswith("d") and name[1:] in self.values:
            return self.notation.gradient.format(self(name[1:]))
        before = name.endswith("_prev")
        return self.notation.value(name.removesuffix("_prev"), "t-1" if before else "t")

    def is_number(self, name: str) -> bool:
        return name in self.constants or name == STEP_NUMBER or is_count(name)


class Writer:
    """Typesets expressions.

    Args:
        name: what is written for a value or a block.
        plain: whether a name is that of a number, so that a product with it has no sign.
        table: operation → how it is typeset.
    """

    def __init__(
        self,
        name: Callable[[str], str],
        plain: Callable[[str], bool] = lambda name: False,
        table: Mapping[str, str] = TYPESET,
    ) -> None:
        self.name = name
        self.plain = plain
        self.table = table

    def expression(self, expression: Expression, binding: int = 0) -> str:
        """An expression, with the brackets that a context of strength `binding` needs."""
        match expression:
            case Number(value=value):
                return _number(value, binding)
            case Name(id=name):
                return self.name(name)
            case Block():
                return self.name(expression.name)
            case Apply():
                return self._application(expression, binding)

    def _application(self, expression: Apply, binding: int) -> str:
        name, arguments = expression.operation, expression.arguments
        strength = OPERATIONS[name].precedence
        typeset = self.table[name]
        if name in _CLOSED:
            return typeset.format(*(self.expression(argument) for argument in arguments))
        if name == "mul" and any(self._is_number(argument) for argument in arguments):
            typeset = r"{0} \cdot {1}" if isinstance(arguments[1], Number) else r"{0} \, {1}"
        if name == "pow":
            parts = [self.expression(arguments[0], 9), self.expression(arguments[1])]
        else:
            parts = [self.expression(arguments[0], strength)] + [
                self.expression(argument, strength + 1) for argument in arguments[1:]
            ]
        if name == "matmul_t":
            parts[0] = _braced(parts[0])
        text = typeset.format(*parts)
        return f"({text})" if strength < binding else text

    def _is_number(self, expression: Expression) -> bool:
        return isinstance(expression, Number) or (
            isinstance(expression, Name) and self.plain(expression.id)
        )


def _number(value: float, binding: int) -> str:
    mantissa, _, power = f"{value:.15g}".partition("e")
    text = rf"{mantissa} \cdot 10^{{{int(power)}}}" if power else mantissa
    text = text.replace("inf", r"\infty").replace("nan", r"\text{nan}")
    return f"({text})" if (value < 0 and binding) or (power and binding > 5) else text


def _braced(text: str) -> str:
    """What can be raised to something."""
    return f"{{{text}}}" if "^" in text else text


def symbol_of(name: str) -> str:
    """A name as it is typeset: one letter, a Greek one, or a word."""
    if name in _GREEK:
        return rf"\{name}"
    return name if len(name) == 1 else rf"\mathrm{{{name}}}".replace("_", r"\_")
