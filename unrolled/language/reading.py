"""From text to equations: the language is read with `ast` and never run.

Takes the text of one function definition, gives checked `Equations`. What stands in the text
and is not in the language gets an error that points at it and says what to write instead.
"""

import ast
import difflib
import inspect
import math
from collections.abc import Iterable

from .equations import Equation, Equations, Source
from .expressions import Apply, Block, Expression, Name, Number, Place, walk
from .operations import FUNCTIONS, OPERATIONS
from .rules import check_families, check_names, check_truths, in_order_of_use

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}

_STEP_NUMBER = "t"

_THE_LANGUAGE = (
    "An equation is made of + - * / ** @, one comparison, numbers, and calls to "
    + ", ".join(sorted(FUNCTIONS))
    + "."
)


def read(text: str) -> Equations:
    """Read the equations of a cell.

    Args:
        text: the definition of one function, as described in `unrolled.cell`.

    Raises:
        EquationError: if the text is not in the language; its message shows the line with a
            caret, what was found, and what to write instead.
    """
    text = inspect.cleandoc(text) if text[:1].isspace() else text
    source = Source("", tuple(text.splitlines()))
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        place = Place(error.lineno or 0, (error.offset or 1) - 1, error.offset or 1)
        raise source.equation_error(
            place, f"this cannot be read ({error.msg}). Write one definition: def name(x, h_prev):"
        ) from None
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    if len(functions) != 1 or len(module.body) != 1:
        raise source.equation_error(
            Place(1, 0, len(source.lines[0]) if source.lines else 1),
            f"a cell is one function definition; found {len(module.body)} statements, of which "
            f"{len(functions)} define a function. Write: def name(x, h_prev, *, W, U, b): ...",
        )
    return _Reader(functions[0], Source(functions[0].name, source.lines)).equations()


def read_expression(text: str, names: Iterable[str]) -> Expression:
    """Read one expression in which `names` are known.

    Raises:
        EquationError: if it is not in the language.
    """
    nameless = ast.parse("def expression(): pass").body[0]
    assert isinstance(nameless, ast.FunctionDef)
    reader = _Reader(nameless, Source("", (text,)))
    reader.known = set(names)
    return reader.expression(ast.parse(text, mode="eval").body)


class _Reader:
    """Reads one function definition."""

    def __init__(self, function: ast.FunctionDef, source: Source) -> None:
        self.function = function
        self.source = source
        self.families: set[str] = set()
        self.known: set[str] = set()
        self.assigned: list[str] = []
        self.given: list[Equation] = []

    def equations(self) -> Equations:
        self._check_decorators()
        inputs, remembered, families, constants = self._arguments()
        self.families = set(families)
        self.known = {*inputs, *(f"{state}_prev" for state in remembered), *constants}
        self.assigned = [
            target.id
            for node in self.function.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        doc, statements = self._body()
        states: tuple[str, ...] = ()
        for statement in statements[:-1]:
            self.given.append(self._equation(statement))
        states = self._returned(statements[-1])
        check_names(self.source, self.given, inputs, remembered, states, families, constants)
        check_families(self.source, self.given, families)
        check_truths(self.source, self.given, states)
        return Equations(
            name=self.function.name,
            doc=doc,
            inputs=inputs,
            remembered=remembered,
            states=states,
            families=families,
            constants=constants,
            equations=in_order_of_use(self.source, self.given),
            written_order=tuple(equation.name for equation in self.given),
            source=self.source,
        )

    # the head: def name(x, h_prev, c_prev, *, W, U, b, dt=0.1)

    def _check_decorators(self) -> None:
        for decorator in self.function.decorator_list:
            if ast.unparse(decorator).split(".")[-1] != "cell":
                raise self._error(
                    decorator,
                    f"found the decorator @{ast.unparse(decorator)}; a cell takes no decorator "
                    "beside @cell, because its body is read and never run.",
                )

    def _arguments(
        self,
    ) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], dict[str, float]]:
        arguments = self.function.args
        for starred in (arguments.vararg, arguments.kwarg):
            if starred:
                raise self._error(
                    starred, f"found *{starred.arg}; name every input, state and family."
                )
        if arguments.defaults:
            raise self._error(
                arguments.defaults[0],
                "found a default for an input or a state. Only a constant has one, and constants "
                "stand after the *: def name(x, h_prev, *, W, dt=0.1).",
            )
        positional = [*arguments.posonlyargs, *arguments.args]
        for argument in (*positional, *arguments.kwonlyargs):
            self._check_argument(argument)
        inputs = tuple(a.arg for a in positional if not a.arg.endswith("_prev"))
        remembered = tuple(
            a.arg.removesuffix("_prev") for a in positional if a.arg.endswith("_prev")
        )
        if len(inputs) != 1:
            raise self._error(
                positional[1] if len(positional) > 1 else self.function,
                f"a cell has one input; found {', '.join(inputs) or 'none'}. States of the step "
                "before end in _prev (h_prev), and parameters and constants stand after a *: "
                "def name(x, h_prev, *, W, U, b).",
            )
        families = []
        constants = {}
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if default is None:
                families.append(argument.arg)
            else:
                constants[argument.arg] = self._constant(argument, default)
        return inputs, remembered, tuple(families), constants

    def _check_argument(self, argument: ast.arg) -> None:
        if argument.annotation is not None:
            raise self._error(
                argument.annotation,
                f"found an annotation of {argument.arg}; sizes and kinds follow from the "
                "equations, so leave it out.",
            )
        self._check_new_name(argument, argument.arg)

    def _check_new_name(self, node: ast.AST, name: str) -> None:
        if name in FUNCTIONS:
            raise self._error(node, f"{name} is the name of a function; choose another name.")
        if name == _STEP_NUMBER:
            raise self._error(node, "t is the number of the step; choose another name.")
        if name.startswith("_"):
            raise self._error(
                node, "names that begin with _ are kept for values without a name; choose another."
            )

    def _constant(self, argument: ast.arg, default: ast.expr) -> float:
        try:
            value = ast.literal_eval(default)
        except ValueError:
            value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(
                default,
                f"found {ast.unparse(default)} as the value of the constant {argument.arg}; "
                "a constant is a number, such as 0.1.",
            )
        return self._finite(default, float(value))

    def _finite(self, node: ast.AST, value: float) -> float:
        if not math.isfinite(value):
            raise self._error(node, f"found {value}; a number in an equation is finite.")
        return value

    # the body

    def _body(self) -> tuple[str, list[ast.stmt]]:
        statements = list(self.function.body)
        doc = ""
        first = statements[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            if isinstance(first.value.value, str):
                doc = inspect.cleandoc(first.value.value)
                statements = statements[1:]
        if not statements or not isinstance(statements[-1], ast.Return):
            raise self._error(
                statements[-1] if statements else self.function,
                "the last line returns the states: return h, or return h, c. "
                "Here none is returned.",
            )
        return doc, statements

    def _equation(self, statement: ast.stmt) -> Equation:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name) as target], value=value):
                self._check_new_name(target, name)
                return Equation(name, self.expression(value), self._place(target))
            case ast.Assign():
                raise self._error(
                    statement,
                    "an equation gives one name: write h = … and c = … on lines of their own.",
                )
            case ast.AugAssign(target=target, op=operator, value=value):
                raise self._error(
                    statement,
                    "a name is given once, so nothing can be changed in place. "
                    f"Write an equation with a new name, such as {ast.unparse(target)}_new = "
                    f"{ast.unparse(ast.BinOp(target, operator, value))}.",
                )
            case ast.AnnAssign(target=target):
                raise self._error(
                    statement, f"leave the annotation out: {ast.unparse(target)} = …"
                )
            case ast.Return():
                raise self._error(statement, "return stands once, on the last line.")
            case ast.If() | ast.For() | ast.While():
                word = type(statement).__name__.lower()
                raise self._error(
                    statement,
                    f"{word} is outside the language: equations hold at every step and for every "
                    "unit. To choose unit by unit, write where(condition, a, b).",
                )
        raise self._error(
            statement,
            "this line is outside the language. A cell is a docstring, equations such as "
            "h = tanh(W.h @ x), and a return.",
        )

    def _returned(self, statement: ast.stmt) -> tuple[str, ...]:
        assert isinstance(statement, ast.Return)
        value = statement.value
        elements = value.elts if isinstance(value, ast.Tuple) else [value]
        names = []
        for element in elements:
            if not isinstance(element, ast.Name):
                raise self._error(
                    element or statement,
                    "return names states: give the value a name first, h = …, then return h.",
                )
            if element.id in names:
                raise self._error(element, f"{element.id} is returned twice.")
            if element.id not in self.assigned:
                raise self._error(
                    element,
                    f"{element.id} is returned, but no equation gives it. "
                    f"{self._suggest(element.id, self.assigned)}",
                )
            names.append(element.id)
        return tuple(names)

    # the right-hand sides

    def expression(self, node: ast.expr) -> Expression:
        place = self._place(node)
        match node:
            case ast.Constant(value=value) if type(value) in (int, float):
                return Number(self._finite(node, float(value)), place)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Attribute():
                return self._block(node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Apply("neg", (self.expression(operand),), place)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.expression(operand)
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                return self._product(left, right, place)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                arguments = (self.expression(left), self.expression(right))
                return Apply(_OPERATORS[type(operator)], arguments, place)
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if (
                type(operator) in _OPERATORS
            ):
                arguments = (self.expression(left), self.expression(right))
                return Apply(_OPERATORS[type(operator)], arguments, place)
            case ast.Call():
                return self._call(node)
        raise self._outside(node)

    def _name(self, node: ast.expr, name: str) -> Expression:
        place = self._place(node)
        if name in self.families:
            raise self._error(
                node,
                f"{name} is a family of parameters; name one of its blocks, such as {name}.h.",
            )
        if name in FUNCTIONS:
            raise self._error(node, f"{name} is a function; call it: {name}(…).")
        if name not in self.known and name not in self.assigned and name != _STEP_NUMBER:
            known = [*self.known, *self.assigned, *self.families]
            hint = self._suggest(name, known)
            if name.endswith("_prev") and name.removesuffix("_prev") in self.assigned:
                hint = f"To use it, add it to the arguments: def {self.function.name}(…, {name})."
            raise self._error(
                node,
                f"{name} is never given: it is neither an argument nor the left side of an "
                f"equation. {hint}",
            )
        return Name(name, place)

    def _block(self, node: ast.Attribute) -> Expression:
        place = self._place(node)
        owner = ast.unparse(node.value)
        if isinstance(node.value, ast.Name) and owner in self.families:
            return Block(owner, node.attr, place)
        if owner in self.known or owner in self.assigned:
            raise self._error(
                node,
                f"{owner} is a vector and has no parts with names; only families of parameters "
                "have blocks, such as W.i. Use the vector whole.",
            )
        raise self._error(
            node,
            f"{owner} is not a family of parameters. Families stand after the * of the "
            f"definition: def {self.function.name}(…, *, {owner}). "
            + self._suggest(owner, self.families),
        )

    def _product(self, left: ast.expr, right: ast.expr, place: Place) -> Expression:
        if not (
            isinstance(left, ast.Attribute)
            and isinstance(left.value, ast.Name)
            and left.value.id in self.families
        ):
            raise self._error(
                left,
                "a block of parameters stands to the left of @, and a vector of the step to its "
                f"right, as in W.i @ x; found {ast.unparse(left)} to the left.",
            )
        block = self.expression(left)
        vector = self.expression(right)
        if not any(
            isinstance(part, Name) and part.id in (*self.known, *self.assigned)
            for part in walk(vector)
        ):
            raise self._error(
                right,
                "a product takes a vector of the step: the input, a state, or something computed "
                f"from them; found {ast.unparse(right)}.",
            )
        return Apply("matmul", (block, vector), place)

    def _call(self, node: ast.Call) -> Expression:
        called = ast.unparse(node.func)
        if isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
            raise self._error(
                node.func,
                f"{called} is outside the language; the equations have their own: "
                f"write {node.func.attr}(…).",
            )
        if not isinstance(node.func, ast.Name) or called not in FUNCTIONS:
            raise self._error(
                node.func,
                f"{called} is no function of the language. {self._suggest(called, FUNCTIONS)} "
                + _THE_LANGUAGE,
            )
        arity = OPERATIONS[called].arity
        if node.keywords or len(node.args) != arity or _starred(node.args):
            found = f"{len(node.args)}" + (" and keywords" if node.keywords else "")
            raise self._error(
                node,
                f"{called} takes {arity} argument{'s' * (arity != 1)}; found {found}. "
                f"Write {OPERATIONS[called].written.format('a', 'b', 'c')}.",
            )
        arguments = tuple(self.expression(argument) for argument in node.args)
        return Apply(called, arguments, self._place(node))

    def _outside(self, node: ast.expr) -> Exception:
        found = ast.unparse(node)
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                parts = ", ".join(ast.unparse(part) for part in (test, body, orelse))
                problem = f"if … else is outside the language; write where({parts})."
            case ast.Compare():
                problem = "a comparison has two sides; write one, or nest two: where(a < b, …)."
            case ast.BoolOp():
                problem = (
                    "and/or are outside the language; nest two choices: where(a, where(b, …), …)."
                )
            case ast.UnaryOp(op=ast.Not()):
                problem = "not is outside the language; turn the comparison round."
            case ast.Subscript():
                problem = f"{found} takes a part of a vector; equations hold for every unit alike."
            case ast.Constant():
                problem = f"found {found}; a number is written like 0.5."
            case _:
                problem = f"found {found}, which is outside the language. {_THE_LANGUAGE}"
        return self._error(node, problem)

    # errors

    def _suggest(self, name: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(name, sorted(known), n=1)
        return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(sorted(known))}."

    def _place(self, node: ast.AST) -> Place:
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        text = self.source.lines[line - 1].encode()
        one_line = getattr(node, "end_lineno", line) == line
        end = getattr(node, "end_col_offset", column + 1) if one_line else len(text)
        return Place(line, len(text[:column].decode()), len(text[:end].decode()))

    def _error(self, node: ast.AST, problem: str) -> Exception:
        return self.source.equation_error(self._place(node), problem)


def _starred(arguments: list[ast.expr]) -> bool:
    return any(isinstance(argument, ast.Starred) for argument in arguments)
