"""A cell's own source run as plain Python on torch tensors, one row and one step after the other.

It shares nothing with the package: not the reading, the order of equations, the sizes, the program
or the derivative, which is autograd's. The equations of the source are tried in turn until each has
what it needs.
"""

import ast
from types import SimpleNamespace

import numpy as np
import torch


def number(a):
    return torch.as_tensor(a, dtype=torch.float64)


def of_one(name):
    function = getattr(torch, name)
    return lambda a: function(number(a))


FUNCTIONS = {
    **{name: of_one(name) for name in ("sigmoid", "tanh", "exp", "log", "sqrt", "abs", "relu")},
    "softplus": lambda a: torch.logaddexp(number(a), number(0.0)),
    "maximum": lambda a, b: torch.maximum(number(a), number(b)),
    "minimum": lambda a, b: torch.minimum(number(a), number(b)),
    "sum": lambda a: number(a).sum(),
    "mean": lambda a: number(a).mean(),
    "where": lambda a, b, c: torch.where(torch.as_tensor(a), number(b), number(c)),
}


_BUILTINS = {"__import__": __import__}  # torch's comparisons need it; nothing else is there


class PlainCell:
    """What a cell's source says, in Python's own words.

    Args:
        source: the text of one function definition.
        constants: named numbers.
    """

    def __init__(self, source, constants):
        function = ast.parse(source).body[0]
        self.constants = dict(constants)
        self.input = function.args.args[0].arg
        self.equations = {
            node.targets[0].id: compile(ast.Expression(node.value), "equation", "eval")
            for node in function.body
            if isinstance(node, ast.Assign)
        }
        returned = function.body[-1].value
        self.states = [
            node.id for node in (returned.elts if isinstance(returned, ast.Tuple) else [returned])
        ]

    def step(self, x, states, blocks, t):
        """The new states of one row."""
        values = {**FUNCTIONS, **self.constants, **families(blocks), self.input: x, "t": float(t)}
        values |= {f"{name}_prev": a for name, a in zip(self.states, states, strict=True)}
        waiting = dict(self.equations)
        while waiting:
            before = len(waiting)
            for name, code in list(waiting.items()):
                try:
                    values[name] = eval(code, {"__builtins__": _BUILTINS}, values)
                except NameError:
                    continue
                del waiting[name]
            assert len(waiting) < before, "equations go round in a circle"
        return [values[name] for name in self.states]

    def row(self, x, states, blocks, reverse=False):
        """One row over its steps: outputs (T, H) and last states."""
        outputs = [None] * len(x)
        for count, place in enumerate(reversed(range(len(x))) if reverse else range(len(x))):
            states = self.step(x[place], states, blocks, count + 1)
            outputs[place] = states[0]
        return outputs, states


def families(blocks):
    """`{"W.i": array}` → `{"W": an object with the attribute i}`."""
    found = {}
    for name, array in blocks.items():
        family, block = name.split(".")
        found.setdefault(family, SimpleNamespace())
        setattr(found[family], block, array)
    return found


def both_passes(source, constants, x_rows, states, blocks, dy_rows, dstates, reverse=False):
    """Outputs, last states and all gradients, the rows of a batch each on its own.

    Args:
        source: the cell's text.
        constants: its named numbers.
        x_rows: an array (T, I) for each row of the batch, of any length.
        states: an array (B, size) for each state.
        blocks: parameters by name.
        dy_rows: the output's gradient, (T, H) for each row.
        dstates: the last states' gradients, as `states`.
        reverse: whether rows are read from their end.

    Returns:
        y rows, last states, dx rows, gradients of the initial states and of the parameters.
    """
    cell = PlainCell(source, constants)

    def leaf(array):
        return torch.tensor(array, dtype=torch.float64, requires_grad=True)

    xs, starts = [leaf(x) for x in x_rows], [leaf(state) for state in states]
    parameters = {name: leaf(array) for name, array in blocks.items()}
    loss, ys, ends = number(0.0), [], []
    for b, x in enumerate(xs):
        y, last = cell.row(list(x), [state[b] for state in starts], parameters, reverse)
        loss = loss + sum((a * number(d)).sum() for a, d in zip(y, dy_rows[b], strict=True))
        loss = loss + sum((a * number(d[b])).sum() for a, d in zip(last, dstates, strict=True))
        ys.append(np.array([a.detach().numpy() for a in y]))
        ends.append([a.detach().numpy() for a in last])
    loss.backward()

    def gradient(tensor):
        return np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()

    return (
        ys,
        [np.stack(parts) for parts in zip(*ends, strict=True)],
        [gradient(x) for x in xs],
        [gradient(state) for state in starts],
        {name: gradient(tensor) for name, tensor in parameters.items()},
    )
