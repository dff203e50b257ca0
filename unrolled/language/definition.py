"""From text to the one function definition that it holds, by Python's own grammar."""

import ast
import re

from ..errors import EquationError
from .equations import Source
from .expressions import Place

DEFINITION = "def name(x, h_prev, *, W, U, b):"


def definition(text: str) -> tuple[ast.FunctionDef, Source]:
    """Find the definition of a cell in its text, which may be indented as a whole.

    Raises:
        EquationError: if Python's grammar cannot read it, or it is not one function definition.
    """
    text = text.removeprefix("\ufeff")  # some editors begin a file with this mark
    source = Source("", tuple(re.split(r"\r\n|\r|\n", text)))  # what Python takes for lines
    function = _one_function(source, _statements(source, text))
    return function, Source(function.name, source.lines)


def too_deep() -> EquationError:
    """The error for what no stack is deep enough for."""
    return EquationError(
        "a cell: brackets or operations lie too deep inside each other to be read. "
        "Give parts names in equations of their own."
    )


def place_of(source: Source, node: ast.AST) -> Place:
    """Where a node begins and ends on its first line, in letters (`ast` counts bytes)."""
    line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
    text = source.lines[line - 1].encode()
    end = getattr(node, "end_col_offset", column + 1)
    if getattr(node, "end_lineno", line) != line:
        end = len(text.rstrip())
    return Place(line, len(text[:column].decode()), len(text[:end].decode()))


def _statements(source: Source, text: str) -> list[ast.stmt]:
    """The statements of a text, which may be indented as a whole."""
    code = (line for line in source.lines if line.strip() and not line.lstrip().startswith("#"))
    indented = next(code, "")[:1].isspace()
    shift = int(indented)
    try:
        module = ast.parse("if 1:\n" * shift + text)
    except SyntaxError as error:
        line, start = (error.lineno or 0) - shift, max(1, error.offset or 1) - 1
        one_line = error.end_lineno == error.lineno and error.end_offset
        end = error.end_offset - 1 if one_line and error.end_offset else start + 1
        problem = re.sub(r"(?<=line )\d+", lambda n: str(int(n[0]) - shift), error.msg)
        raise source.equation_error(
            Place(line, start, end),
            f"Python cannot read this: {problem}. Equations are written as in Python: "
            "h = tanh(W.h @ x + b.h)",
        ) from None
    except ValueError as error:  # a null byte, half a surrogate pair
        raise EquationError(f"a cell: Python cannot read this text: {error}.") from None
    except (RecursionError, MemoryError):
        raise too_deep() from None
    ast.increment_lineno(module, -shift)
    if not indented:
        return module.body
    block = module.body[0]
    assert isinstance(block, ast.If)
    return [*block.body, *module.body[1:]]


def _one_function(source: Source, statements: list[ast.stmt]) -> ast.FunctionDef:
    if not statements:
        raise EquationError(f"a cell: the text is empty. Write one definition: {DEFINITION} …")
    functions = [node for node in statements if isinstance(node, ast.FunctionDef)]
    others = [node for node in statements if node not in functions[:1]]
    if functions and not others:
        return functions[0]
    problem = f"a cell is one function definition: {DEFINITION} …"
    if isinstance(others[0], ast.AsyncFunctionDef):
        problem = "a cell is a function without async: write def."
    elif len(functions) > 1 and others[0] is functions[1]:
        problem = "a second definition; a cell is one. Read each from a text of its own."
    elif functions:
        problem = "a cell's text is one function definition and nothing else; leave this out."
    raise source.equation_error(place_of(source, others[0]), problem)
