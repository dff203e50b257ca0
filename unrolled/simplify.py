"""A program with less in it that gives the same numbers.

Only rules that hold in floating point too: neutral elements are dropped, small powers written out,
equal instructions shared, and what nobody wants is left out. Sums keep their order. What follows
from numbers alone is worked out here, in double precision.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace

from .language.sizes import ONE
from .program import Argument, Instruction, Program, Total

Rewrite = tuple[str, tuple[Argument | bool, ...]]

# What an operation on numbers alone is worth.
_ON_NUMBERS: dict[str, Callable[..., float]] = {
    "same": float,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "pow": math.pow,
    "maximum": lambda a, b: a if a >= b or math.isnan(a) else b,
    "minimum": lambda a, b: a if a <= b or math.isnan(a) else b,
    "sigmoid": lambda a: (1.0 if a >= 0 else math.exp(a)) / (1 + math.exp(-abs(a))),
    "tanh": math.tanh,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "abs": abs,
    "relu": lambda a: max(a, 0.0),
    "softplus": lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))),
}

# An operation with a number in it → the same thing simpler. None: leave it as it is.
_WITH_NUMBERS: dict[str, Callable[[Argument | bool, Argument | bool], Rewrite | None]] = {
    "add": lambda a, b: ("same", (b,)) if a == 0 else ("same", (a,)) if b == 0 else None,
    "sub": lambda a, b: ("same", (a,)) if b == 0 else ("neg", (b,)) if a == 0 else None,
    "mul": lambda a, b: ("same", (b,)) if a == 1 else ("same", (a,)) if b == 1 else None,
    "div": lambda a, b: ("same", (a,)) if b == 1 else None,
    "pow": lambda a, b: _POWERS[b](a) if isinstance(b, float) and b in _POWERS else None,
}

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}

_POWERS: dict[float, Callable[[Argument | bool], Rewrite]] = {
    0.5: lambda a: ("sqrt", (a,)),
    1.0: lambda a: ("same", (a,)),
    2.0: lambda a: ("mul", (a, a)),
    -1.0: lambda a: ("div", (1.0, a)),
}


def simplify(program: Program) -> Program:
    """The same program with less in it.

    Values that are handed on or given out keep their names; others may vanish.
    """
    return without_unused(_share(_name_unnamed(program)))


def _name_unnamed(program: Program) -> Program:
    """Where a name is only another one for a value without a name, give it to that value."""
    unnamed = {name for name in program.by_name if name.startswith("_")}
    named: dict[str, str] = {}
    for instruction in program.instructions:
        argument = instruction.arguments[0]
        if instruction.operation != "same" or argument not in unnamed or argument in named:
            continue
        if program.sizes[str(argument)] == program.sizes[instruction.name]:
            named[str(argument)] = instruction.name
    left_out = set(named.values())

    def renamed(argument: Argument) -> Argument:
        return named.get(argument, argument) if isinstance(argument, str) else argument

    return replace(
        program,
        instructions=tuple(
            Instruction(
                str(renamed(instruction.name)),
                instruction.operation,
                tuple(renamed(argument) for argument in instruction.arguments),
            )
            for instruction in program.instructions
            if instruction.name not in left_out
        ),
        totals=_totals(program, renamed),
    )


def _share(program: Program) -> Program:
    """Fold numbers, apply the rules, and let equal instructions share one result."""
    fixed = {value for group in program.outputs for value in group}
    fixed |= {handed_on for _, handed_on in program.carried}
    stands_for: dict[str, Argument | bool] = {}
    seen: dict[tuple[str, tuple[Argument | bool, ...], str], str] = {}
    negated: dict[str, Argument | bool] = {}
    kept: list[Instruction] = []

    def meaning(argument: Argument) -> Argument | bool:
        return stands_for.get(argument, argument) if isinstance(argument, str) else argument

    for instruction in program.instructions:
        name, size = instruction.name, program.sizes[instruction.name]
        operation, arguments = _rewritten(
            instruction.operation, tuple(meaning(argument) for argument in instruction.arguments)
        )
        operation, arguments = _without_sign(operation, arguments, negated)
        key = (operation, arguments, size)
        alias = operation == "same" and _size(program, arguments[0]) == size
        if operation == "truth" or (alias and name not in fixed):
            stands_for[name] = arguments[0]
        elif name not in fixed and key in seen:
            stands_for[name] = seen[key]
        else:
            seen.setdefault(key, name)
            if operation == "neg":
                negated[name] = arguments[0]
            kept.append(Instruction(name, operation, arguments))
    return replace(
        program,
        instructions=tuple(kept),
        totals=_totals(program, lambda factor: str(meaning(factor))),
    )


def _totals(program: Program, renamed: Callable[[str], Argument]) -> tuple[Total, ...]:
    return tuple(
        replace(total, factors=tuple(str(renamed(factor)) for factor in total.factors))
        for total in program.totals
    )


def _rewritten(operation: str, arguments: tuple[Argument | bool, ...]) -> Rewrite:
    if operation == "where" and isinstance(arguments[0], bool):
        return "same", (arguments[1 if arguments[0] else 2],)
    numbers = [argument for argument in arguments if isinstance(argument, float)]
    if len(numbers) == len(arguments):
        if operation in _COMPARISONS:
            return "truth", (_COMPARISONS[operation](*numbers),)
        try:
            return "same", (_ON_NUMBERS[operation](*numbers),)
        except (KeyError, ValueError, OverflowError, ZeroDivisionError):
            return operation, arguments  # the reference gives the NaN or infinity that is due
    if numbers and operation in _WITH_NUMBERS:
        return _WITH_NUMBERS[operation](arguments[0], arguments[1]) or (operation, arguments)
    return operation, arguments


def _without_sign(
    operation: str,
    arguments: tuple[Argument | bool, ...],
    negated: Mapping[str, Argument | bool],
) -> Rewrite:
    """`a + -b` is `a - b`, and `a - -b` is `a + b`, to the last bit."""
    last = arguments[-1]
    if operation not in ("add", "sub") or not isinstance(last, str) or last not in negated:
        return operation, arguments
    return "sub" if operation == "add" else "add", (arguments[0], negated[last])


def _size(program: Program, argument: Argument | bool) -> str:
    if not isinstance(argument, str):
        return ONE
    if program.is_parameter(argument):
        return ""  # a block is no value of the step: it keeps its own name
    return program.sizes[argument]


def without_unused(program: Program) -> Program:
    """Leave out the instructions that no wanted value needs."""
    needed = set(program.wanted)
    kept = []
    for instruction in reversed(program.instructions):
        if instruction.name in needed:
            needed.update(instruction.operands)
            kept.append(instruction)
    return replace(program, instructions=tuple(reversed(kept)))
