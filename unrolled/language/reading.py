"""From text to equations: the language is read with `ast` and never run.

Takes the text of one function definition, gives checked `Equations`. What stands in the text
and is not in the language gets an error that points at it and says what to write instead.
"""

import ast
import inspect
from collections.abc import Iterable
from dataclasses import replace

from .defaults import Initial, finite_number, is_number, value_of
from .definition import DEFINITION, definition, place_of, too_deep
from .equations import Draw, Equation, Equations, Head, Source
from .expressions import Apply, Block, Expression, Name, Number, Place, walk
from .operations import FUNCTIONS
from .remedies import (
    instead_of_arguments,
    instead_of_call,
    instead_of_expression,
    instead_of_product,
    instead_of_statement,
    suggestion,
)
from .rules import check_families, check_given, check_truths, check_used, in_order_of_use

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

_MODULES = frozenset({"math", "np", "numpy", "torch", "F", "jnp", "jax", "tf", "scipy", "unrolled"})

_DEEPEST = 200  # brackets and operations inside each other


def read(text: str) -> Equations:
    """Read the equations of a cell.

    Args:
        text: the definition of one function, as described in `unrolled.cell`.

    Raises:
        EquationError: if the text is not in the language; its message shows the line with a
            caret, what was found, and what to write instead.
    """
    function, source = definition(text)
    try:
        return _Reader(function, source).equations()
    except RecursionError:
        raise too_deep() from None


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
        self.head = Head(function.name, (), (), (), {})

    def equations(self) -> Equations:
        self._check_decorators()
        self.head = head = self._head()
        self.families = set(head.families)
        self.known = {*head.inputs, *(f"{state}_prev" for state in head.remembered)}
        self.known |= {*head.constants, *head.draws}
        self.assigned = [
            target.id
            for node in self.function.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        doc, statements, last = self._body()
        equations = [self._equation(statement) for statement in statements]
        check_given(self.source, head, equations)
        states = self._returned(last)
        check_families(self.source, equations)
        check_truths(self.source, equations, states)
        in_order = in_order_of_use(self.source, equations, states)
        check_used(self.source, head, equations, states)
        return Equations(
            name=head.name,
            doc=doc,
            inputs=head.inputs,
            remembered=head.remembered,
            states=states,
            families=head.families,
            constants=head.constants,
            draws=head.draws,
            initial=head.initial,
            equations=in_order,
            written_order=tuple(equation.name for equation in equations),
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

    def _head(self) -> Head:
        arguments = self.function.args
        self._check_stars(arguments)
        for parameter in getattr(self.function, "type_params", ()):  # of Python 3.12 and later
            raise self._error(parameter, "a cell has no types; leave the [] out.")
        if arguments.defaults:
            raise self._error(
                arguments.defaults[0],
                "only a constant has a value here, and constants stand after the *: "
                "def name(x, h_prev, *, W, dt=0.1):",
            )
        if self.function.returns is not None:
            raise self._error(
                self.function.returns,
                "a cell has no annotations, because sizes follow from the equations; "
                "leave this one out.",
            )
        positional = [*arguments.posonlyargs, *arguments.args]
        places: dict[str, Place] = {}
        for argument in (*positional, *arguments.kwonlyargs):
            self._check_argument(argument)
            if argument.arg in places:
                raise self._error(argument, f"{argument.arg} stands twice among the arguments.")
            places[argument.arg] = self._place(argument)
        families = []
        initial = {}
        constants = {}
        draws = {}
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            given = value_of(self.source, argument.arg, default)
            if given is None or isinstance(given, Initial):
                families.append(argument.arg)
            if isinstance(given, Initial):
                initial[argument.arg] = given.number
            elif isinstance(given, Draw):
                draws[argument.arg] = given
            elif given is not None:
                constants[argument.arg] = given
        head = Head(
            self.function.name,
            tuple(a.arg for a in positional if not a.arg.endswith("_prev")),
            tuple(a.arg.removesuffix("_prev") for a in positional if a.arg.endswith("_prev")),
            tuple(families),
            constants,
            places,
            draws,
            initial,
        )
        self._check_one_input(head)
        self._check_states_first(head)
        return head

    def _check_stars(self, arguments: ast.arguments) -> None:
        for stars, starred in (("*", arguments.vararg), ("**", arguments.kwarg)):
            if starred:
                raise self._error(
                    starred,
                    f"found {stars}{starred.arg}; name every input, state and family of "
                    f"parameters: {DEFINITION}",
                )

    def _check_one_input(self, head: Head) -> None:
        if not head.inputs:
            wanted = replace(head, inputs=("x",))
            raise self._error(self.function, f"a cell has an input, its first argument: {wanted}")
        if len(head.inputs) == 1:
            return
        extra = head.inputs[1:]
        owners = {
            node.value.id
            for node in ast.walk(self.function)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        if owners.issuperset(extra):
            wanted = replace(head, inputs=head.inputs[:1], families=(*extra, *head.families))
            remedy = f"Families of parameters stand after a *: {wanted}"
        else:
            remedy = (
                "States of the step before end in _prev, families of parameters and constants "
                f"stand after a *: {DEFINITION}"
            )
        raise self.source.equation_error(
            head.places[extra[0]], f"a cell has one input; found {', '.join(head.inputs)}. {remedy}"
        )

    def _check_states_first(self, head: Head) -> None:
        for name in (*head.families, *head.constants, *head.draws):
            if name.endswith("_prev"):
                wanted = replace(
                    head,
                    remembered=(*head.remembered, name.removesuffix("_prev")),
                    families=tuple(family for family in head.families if family != name),
                    constants={key: v for key, v in head.constants.items() if key != name},
                    draws={key: draw for key, draw in head.draws.items() if key != name},
                )
                raise self.source.equation_error(
                    head.places[name],
                    f"{name} is the value of a state at the step before, which stands in front of "
                    f"the *: {wanted}",
                )

    def _check_argument(self, argument: ast.arg) -> None:
        if argument.annotation is not None:
            raise self._error(
                argument.annotation,
                "a cell has no annotations, because sizes follow from the equations; "
                "leave this one out.",
            )
        self._check_new_name(argument, argument.arg)

    def _check_new_name(self, node: ast.AST, name: str) -> None:
        if name in FUNCTIONS:
            raise self._error(node, f"{name} is a function of the language. Choose another name.")
        if name == _STEP_NUMBER:
            raise self._error(node, "t is the number of the step. Choose another name.")
        if name.startswith("_"):
            raise self._error(
                node,
                "names that begin with _ are kept for values that have no name. "
                f"Choose another, such as {name.strip('_') or 'a'}.",
            )

    # the body

    def _body(self) -> tuple[str, list[ast.stmt], ast.Return]:
        statements = list(self.function.body)
        doc = ""
        match statements[0]:
            case ast.Expr(value=ast.Constant(value=str(text))):
                lines = inspect.cleandoc(text).split("\n")
                doc = "\n".join(line.rstrip() for line in lines).strip("\n")
                del statements[0]
        last = statements.pop() if statements else self.function
        if not isinstance(last, ast.Return):
            for statement in statements:
                self._equation(statement)  # an earlier line may say what is wrong
            raise self._error(last, f"the last line returns the states: {self._return()}")
        return doc, statements, last

    def _return(self) -> str:
        """The return that a cell without one seems to need."""
        remembered = [state for state in self.head.remembered if state in self.assigned]
        return f"return {', '.join(remembered or self.assigned[-1:] or ['h'])}"

    def _equation(self, statement: ast.stmt) -> Equation:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name) as target], value=value):
                self._check_new_name(target, name)
                if _depth(value) > _DEEPEST:
                    raise self._error(
                        value,
                        f"more than {_DEEPEST} brackets and operations lie inside each other. "
                        "Give parts names in equations of their own.",
                    )
                return Equation(name, self.expression(value), self._place(target))
        raise self._error(statement, instead_of_statement(statement))

    def _returned(self, statement: ast.Return) -> tuple[str, ...]:
        value = statement.value
        elements = value.elts if isinstance(value, ast.Tuple) else [value]
        names: list[str] = []
        for element in elements or [None]:
            if element is None:
                raise self._error(statement, f"return names the states: {self._return()}")
            if not isinstance(element, ast.Name):
                raise self._error(
                    element,
                    "return names states. Give this value a name in an equation, and return that "
                    "name: return h",
                )
            if element.id in names:
                raise self._error(element, f"{element.id} is returned twice; name it once.")
            if element.id not in self.assigned:
                raise self._error(
                    element,
                    f"{element.id} is returned, but no equation gives it."
                    + suggestion(element.id, self.assigned),
                )
            names.append(element.id)
        return tuple(names)

    # the right-hand sides

    def expression(self, node: ast.expr) -> Expression:
        place = self._place(node)
        match node:
            case ast.Constant() if is_number(node):
                return Number(finite_number(self.source, node), place)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Attribute():
                return self._block(node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Apply("neg", (self.expression(operand),), place)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.expression(operand)
            case ast.BinOp(op=ast.MatMult()):
                return self._product(node)
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
        raise self._error(node, instead_of_expression(node, self.families))

    def _name(self, node: ast.expr, name: str) -> Expression:
        place = self._place(node)
        if name in self.families:
            raise self._error(
                node,
                f"{name} is a family of parameters; name one of its blocks, such as {name}.h",
            )
        if name in FUNCTIONS:
            raise self._error(node, f"{name} is a function; call it, as in {name}(…).")
        if name not in self.known and name not in self.assigned and name != _STEP_NUMBER:
            hint = suggestion(name, [*self.known, *self.assigned, *self.families])
            state = name.removesuffix("_prev")
            if name.endswith("_prev") and state in self.assigned:
                head = replace(self.head, remembered=(*self.head.remembered, state))
                hint = f" To use it, name it among the arguments: {head}"
            raise self._error(
                node,
                f"{name} is never given: it is neither an argument nor the left side of an "
                f"equation.{hint}",
            )
        return Name(name, place)

    def _block(self, node: ast.Attribute) -> Expression:
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=block) if owner in self.families:
                if block.startswith("_"):
                    self._check_new_name(node, block)
                return Block(owner, block, self._place(node))
        raise self._error(node, self._no_family(node))

    def _no_family(self, node: ast.Attribute) -> str:
        code = ast.unparse(node)
        if not isinstance(node.value, ast.Name):
            return f"found {code}; only a family of parameters has parts with names, such as W.i."
        owner = node.value.id
        if owner in self.known or owner in self.assigned or owner == _STEP_NUMBER:
            return (
                f"{owner} is a vector or a number, and only families of parameters have parts with "
                f"names. Write {owner} alone."
            )
        if owner in _MODULES:
            return (
                f"{code} is outside the language, which knows no modules. Write the number itself."
            )
        known = suggestion(owner, self.families)
        if "mean" not in known:
            head = replace(self.head, families=(*self.head.families, owner))
            known = f" To make it one, name it after the *: {head}"
        return f"{owner} is not a family of parameters.{known}"

    def _product(self, node: ast.BinOp) -> Expression:
        left, right = node.left, node.right
        if isinstance(left, ast.Attribute | ast.Subscript) or _named(left) in self.families:
            block = self.expression(left)
        else:
            raise self._error(left, instead_of_product(left, right, self.families))
        vector = self.expression(right)
        vectors = {*self.known, *self.assigned} - set(self.head.constants)
        if not any(isinstance(part, Name) and part.id in vectors for part in walk(vector)):
            raise self._error(
                right,
                "a product takes a vector of the step: the input, a state, or something computed, "
                f"as in {ast.unparse(left)} @ x; found {ast.unparse(right)}.",
            )
        return Apply("matmul", (block, vector), self._place(node))

    def _call(self, node: ast.Call) -> Expression:
        name = _named(node.func)
        if name not in FUNCTIONS:
            values = {*self.known, *self.assigned}
            raise self._error(node.func, instead_of_call(node, self.families, values))
        if problem := instead_of_arguments(node, name):
            raise self._error(node, problem)
        arguments = tuple(self.expression(argument) for argument in node.args)
        return Apply(name, arguments, self._place(node))

    def _place(self, node: ast.AST) -> Place:
        return place_of(self.source, node)

    def _error(self, node: ast.AST, problem: str) -> Exception:
        return self.source.equation_error(self._place(node), problem)


def _named(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _depth(node: ast.AST) -> int:
    """How many nodes lie inside each other, counted without recursion."""
    deepest, waiting = 0, [(node, 1)]
    while waiting:
        part, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(child, depth + 1) for child in ast.iter_child_nodes(part)]
    return deepest
