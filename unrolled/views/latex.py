r"""The equations of a cell as they are typeset, in LaTeX.

A value at this step is written `i_t`, one of the step before `h_{t-1}`, a block `W_i`, a product
with a matrix by writing them side by side, and one unit by unit with `\odot`.
"""

from ..language.equations import Equations
from ..language.expressions import Apply, Block, Expression, Name, Number
from ..language.operations import OPERATIONS

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
    "matmul": "{0} {1}",
}

# Operations that need no brackets around them, and whose arguments need none.
_CLOSED = {
    *("div", "where", "maximum", "minimum", "sigmoid", "tanh", "exp", "log", "sqrt", "abs"),
    *("relu", "softplus"),
}

_GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi"),
    *("omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
}


def latex(equations: Equations) -> str:
    r"""The equations as one `aligned` environment, in the order in which they were written.

    Args:
        equations: those of a cell: `latex(cell.equations)`.

    Returns:
        LaTeX for math mode; it needs the package amsmath.
    """
    by_name = {equation.name: equation for equation in equations.equations}
    writer = _Writer(equations)
    lines = [
        rf"    {writer.name(name)} &= {writer.expression(by_name[name].expression)}"
        for name in equations.written_order
    ]
    return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])


class _Writer:
    def __init__(self, equations: Equations) -> None:
        self.timeless = {*equations.constants, "t"}

    def name(self, name: str) -> str:
        """A value with its step as index."""
        if name in self.timeless:
            return _symbol(name)
        base = name.removesuffix("_prev")
        step = "t-1" if name.endswith("_prev") else "t"
        letter, _, mark = base.partition("_")
        raised = rf"^{{\mathrm{{{mark.replace('_', ',')}}}}}" if mark else ""
        return f"{_symbol(letter)}{raised}_{{{step}}}"

    def expression(self, expression: Expression, binding: int = 0) -> str:
        """An expression, with the brackets that a context of strength `binding` needs."""
        match expression:
            case Number(value=value):
                text = f"{value:.15g}"
                return f"({text})" if value < 0 and binding else text
            case Name(id=name):
                return self.name(name)
            case Block(family=family, block=block):
                letter, _, mark = family.partition("_")
                raised = rf"^{{{_symbol(mark)}}}" if mark else ""
                return f"{_symbol(letter)}{raised}_{{{_symbol(block)}}}"
            case Apply():
                return self._application(expression, binding)

    def _application(self, expression: Apply, binding: int) -> str:
        name, arguments = expression.operation, expression.arguments
        strength = OPERATIONS[name].precedence
        typeset = TYPESET[name]
        if name in _CLOSED:
            return typeset.format(*(self.expression(argument) for argument in arguments))
        if name == "mul" and any(isinstance(a, Number) or self._is_number(a) for a in arguments):
            typeset = r"{0} \, {1}"
        if name == "pow":
            parts = [self.expression(arguments[0], 9), self.expression(arguments[1])]
        else:
            parts = [self.expression(arguments[0], strength)] + [
                self.expression(argument, strength + 1) for argument in arguments[1:]
            ]
        text = typeset.format(*parts)
        return f"({text})" if strength < binding else text

    def _is_number(self, expression: Expression) -> bool:
        return isinstance(expression, Name) and expression.id in self.timeless


def _symbol(name: str) -> str:
    if name in _GREEK:
        return rf"\{name}"
    return name if len(name) == 1 else rf"\mathrm{{{name}}}".replace("_", r"\_")
