"""What newcomers write that is outside the language, and what to write instead.

Each function takes a piece of Python's syntax tree and gives one or two sentences for an error.
What they propose is code that works, made from the code that was found.
"""

import ast
import difflib
from collections.abc import Iterable

from .operations import FUNCTIONS, OPERATIONS

_THE_LANGUAGE = (
    "An equation is made of names, numbers, + - * / ** @, one comparison, and calls to "
    + ", ".join(sorted(FUNCTIONS))
    + "."
)

# Functions of NumPy, torch and Python that the language writes in another way.
_ELSEWHERE = {
    "pow": "a ** b",
    "power": "a ** b",
    "square": "a ** 2",
    "dot": "W.i @ x",
    "matmul": "W.i @ x",
    "max": "maximum(a, b)",
    "min": "minimum(a, b)",
    "clip": "minimum(maximum(a, 0), 1)",
    "clamp": "minimum(maximum(a, 0), 1)",
    "fabs": "abs(a)",
    "absolute": "abs(a)",
    "expit": "sigmoid(a)",
    "logistic": "sigmoid(a)",
}

_OPPOSITES: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.GtE(),
    ast.LtE: ast.Gt(),
    ast.Gt: ast.LtE(),
    ast.GtE: ast.Lt(),
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, or all of them, or nothing where there are none."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f" Did you mean {near[0]}?"
    return f" Known here: {', '.join(names)}." if names else ""


def instead_of_statement(statement: ast.stmt) -> str:
    """What to write instead of a statement that is no equation."""
    match statement:
        case ast.Assign(targets=[ast.Tuple() | ast.List() as target], value=value):
            return _instead_of_several(target.elts, value)
        case ast.Assign(targets=[target]):
            return f"the left side of an equation is one name, as in h = …; found {_code(target)}."
        case ast.Assign(targets=[*others, last], value=value):
            parts = [f"{_code(last)} = {_code(value)}"]
            parts += [f"{_code(other)} = {_code(last)}" for other in others]
            return f"an equation gives one name: write {' and '.join(parts)} on lines of their own."
        case ast.AugAssign(target=ast.Name(id=name) as target, op=operator, value=value):
            changed = _code(ast.BinOp(ast.Name(name), operator, value))
            return (
                "a name is given once, so nothing is changed in place. "
                f"Write an equation with a new name: {name}_new = {changed}"
            )
        case ast.AugAssign():
            return "a name is given once, so nothing is changed in place. Write a new equation."
        case ast.AnnAssign(target=target, value=value):
            right = _code(value) if value else "…"
            return f"an equation has no annotation; write {_code(target)} = {right}"
        case ast.Return():
            return "return stands once, on the last line."
        case ast.If():
            return f"if is outside the language. {_choice(statement)}"
        case ast.For() | ast.While() | ast.AsyncFor():
            return (
                "a loop is outside the language: the equations are one step, and whoever runs the "
                "cell repeats it. Write what one step does; h_prev is the value of the step before."
            )
        case ast.Expr(value=ast.Constant()):
            return "this line says nothing; a comment begins with #."
        case ast.Expr(value=value) if not _is_foreign_call(value):
            return f"this line gives no name a value; write name = {_code(value)}"
    return (
        "this line is outside the language. A cell is a docstring, equations such as "
        "h = tanh(W.h @ x), and a return."
    )


def instead_of_expression(node: ast.expr, families: Iterable[str]) -> str:
    """What to write instead of an expression that is outside the language."""
    match node:
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"if … else is outside the language; write {_where(test, body, orelse)}."
        case ast.Compare(ops=[ast.Is() | ast.IsNot() | ast.In() | ast.NotIn()]):
            return "the comparisons of the language are < <= > >= == and !=."
        case ast.Compare(left=left, ops=[first, second], comparators=[middle, right]):
            one = _code(ast.Compare(left, [first], [middle]))
            two = _code(ast.Compare(middle, [second], [right]))
            return (
                "a comparison has two sides. Where both must hold, nest two choices: "
                f"where({one}, where({two}, a, b), b)."
            )
        case ast.Compare():
            return "a comparison has two sides; nest choices: where(a < b, where(…), …)."
        case ast.BoolOp(op=ast.And(), values=[one, two, *_]):
            return _instead_of_and(one, two)
        case ast.BinOp(op=ast.BitAnd(), left=one, right=two):
            return _instead_of_and(one, two)
        case ast.BoolOp(op=ast.Or(), values=[one, two, *_]):
            return _instead_of_or(one, two)
        case ast.BinOp(op=ast.BitOr(), left=one, right=two):
            return _instead_of_or(one, two)
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            return f"not is outside the language; {_turned_round(operand)}"
        case ast.Subscript(value=ast.Name(id=name)) if name in families:
            return f"the blocks of a family are named with a dot: write {name}.i"
        case ast.Subscript():
            return (
                f"{_code(node)} is a part of a vector, and an equation holds for every unit alike. "
                "Take the vector whole, or make a smaller one with a product: W.i @ x."
            )
        case ast.Constant():
            return f"found {_code(node)}; a number is written like 0.5."
    return f"found {_code(node)}, which is outside the language. {_THE_LANGUAGE}"


def instead_of_call(node: ast.Call, families: Iterable[str], values: Iterable[str]) -> str:
    """What to write instead of a call to something that is no function of the language."""
    called = _code(node.func)
    last = node.func.attr if isinstance(node.func, ast.Attribute) else called
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(owner, ast.Name) and owner.id in families:
        return f"{called} is a block of parameters, not a function. Write {called} @ x."
    if called in families:
        return f"{called} is a family of parameters, not a function. Write {called}.i @ x."
    if called in values:
        return f"{called} is a vector or a number, not a function. Unit by unit, multiply with *."
    if last in FUNCTIONS:
        method = owner is not None and not _is_module(owner, {*families, *values})
        arguments = [owner, *node.args] if method and owner else node.args
        if len(arguments) == OPERATIONS[last].arity:
            own = _code(ast.Call(ast.Name(last), arguments, []))
        else:
            own = OPERATIONS[last].written.format("a", "b", "c")
        return f"{called} is outside the language, which has its own {last}: write {own}."
    if last in _ELSEWHERE:
        return f"{called} is no function of the language; write {_ELSEWHERE[last]}."
    near = difflib.get_close_matches(last, sorted(FUNCTIONS), n=1)
    if near:
        return f"{called} is no function of the language. Did you mean {near[0]}?"
    return f"{called} is no function of the language. It has {', '.join(sorted(FUNCTIONS))}."


def instead_of_arguments(node: ast.Call, name: str) -> str | None:
    """What is wrong with the arguments of a call to the function `name`; None if nothing is."""
    operation = OPERATIONS[name]
    arity = operation.arity
    if node.keywords:
        found = "a keyword"
    elif any(isinstance(argument, ast.Starred) for argument in node.args):
        found = "a *"
    elif len(node.args) != arity:
        found = str(len(node.args))
    else:
        return None
    return (
        f"{name} takes {arity} argument{'s' * (arity != 1)}; found {found}. "
        f"Write {operation.written.format('a', 'b', 'c')}."
    )


def instead_of_product(left: ast.expr, right: ast.expr, families: Iterable[str]) -> str:
    """What to write instead of a product whose left side is no block of parameters."""
    rule = f"to the left of @ stands one block of parameters; found {_code(left)}."
    if _is_block(right, families):
        return f"{rule} Turn it round: {_code(ast.BinOp(right, ast.MatMult(), left))}"
    sum_of = isinstance(left, ast.BinOp) and isinstance(left.op, ast.Add | ast.Sub)
    if isinstance(left, ast.BinOp) and not sum_of and _is_block(left.right, families):
        product = ast.BinOp(left.right, ast.MatMult(), right)
        return f"{rule} Write {_code(ast.BinOp(left.left, left.op, product))}"
    if isinstance(left, ast.UnaryOp) and _is_block(left.operand, families):
        product = ast.BinOp(left.operand, ast.MatMult(), right)
        return f"{rule} Write {_code(ast.UnaryOp(left.op, product))}"
    if isinstance(left, ast.Name | ast.Constant):
        return f"{rule} Unit by unit, write {_code(ast.BinOp(left, ast.Mult(), right))}"
    return f"{rule} Write products such as W.i @ x, and combine their results."


def _instead_of_several(targets: list[ast.expr], value: ast.expr) -> str:
    values = [_code(part) for part in value.elts] if isinstance(value, ast.Tuple) else []
    if len(values) != len(targets):
        values = ["…"] * len(targets)
    parts = [f"{_code(target)} = {part}" for target, part in zip(targets, values, strict=True)]
    return f"an equation gives one name: write {' and '.join(parts)} on lines of their own."


def _choice(statement: ast.If) -> str:
    """The `where` that says what an `if` with one equation on each side says."""
    match statement:
        case ast.If(
            test=test,
            body=[ast.Assign(targets=[ast.Name(id=name)], value=one)],
            orelse=[ast.Assign(targets=[ast.Name(id=other)], value=two)],
        ) if name == other:
            return f"Choose unit by unit: {name} = {_where(test, one, two)}"
    return "Choose unit by unit: h = where(x > 0, a, b)"


def _where(test: ast.expr, one: ast.expr, two: ast.expr) -> str:
    condition = test if isinstance(test, ast.Compare) else ast.Compare(
        test, [ast.Gt()], [ast.Constant(0)]
    )  # fmt: skip
    return f"where({_code(condition)}, {_code(one)}, {_code(two)})"


def _instead_of_and(one: ast.expr, two: ast.expr) -> str:
    return (
        "and is outside the language; nest two choices: "
        f"where({_code(one)}, where({_code(two)}, a, b), b)."
    )


def _instead_of_or(one: ast.expr, two: ast.expr) -> str:
    return (
        "or is outside the language; nest two choices: "
        f"where({_code(one)}, a, where({_code(two)}, a, b))."
    )


def _turned_round(operand: ast.expr) -> str:
    match operand:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if (
            type(operator) in _OPPOSITES
        ):
            opposite = ast.Compare(left, [_OPPOSITES[type(operator)]], [right])
            return f"write {_code(opposite)}."
    return "turn the comparison round, or exchange what where chooses between."


def _is_foreign_call(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and _code(node.func) not in FUNCTIONS


def _is_module(node: ast.expr, known: Iterable[str]) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id not in known


def _is_block(node: ast.expr, families: Iterable[str]) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in families
    )


def _code(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node))
