"""What pictures read off a trace, with sentences for what is not there."""

from collections.abc import Sequence

from ...backends.steps import Array
from ...errors import InputError
from ...network import Trace


def series(trace: Trace, name: str, layer: int, direction: int, example: int) -> Array:
    """One named value over the steps of one example, (steps, size).

    Raises:
        InputError: if the trace has no such value, layer, direction or example.
    """
    place(trace, layer, direction, example)
    cell = trace.network.cell
    if name not in cell.names:
        raise InputError(f"cell '{cell.name}' has no value {name}; it has {', '.join(cell.names)}.")
    if name not in (kept := kept_names(trace)):
        raise InputError(
            f"{name} was not kept; this trace has {', '.join(kept) or 'no values'}. "
            "trace(x) without names= keeps all."
        )
    return trace[name, layer, direction][: trace.lengths[example], example]


def kept_names(trace: Trace) -> tuple[str, ...]:
    """The names of the values that a trace kept, in the order of computation."""
    kept = trace.layers[-1][0].values
    return tuple(name for name in trace.network.cell.names if name in kept)


def place(trace: Trace, layer: int, direction: int, example: int) -> None:
    """Check that there is something to see at a place.

    Raises:
        InputError: if the trace is none, or has no such layer, direction or example.
    """
    if not isinstance(trace, Trace):
        raise InputError(
            "this picture is drawn from a Trace, as network.trace(x) gives (a torch layer's trace "
            f"holds it as .values); found {type(trace).__name__}."
        )
    network, batch = trace.network, trace.x.shape[1]
    for what, given, count in (
        ("layers", layer, network.num_layers),
        ("directions", direction, network.directions),
        ("examples", example, batch),
    ):
        if not -count <= given < count:
            raise InputError(
                f"this trace has {count} {what}, counted from 0; there is no {what[:-1]} {given}."
            )
    if trace.lengths[example] == 0:
        raise InputError(f"example {example} of this trace has no steps.")


def where(trace: Trace, layer: int, direction: int | None) -> str:
    """A place in words, as a picture's title says it: `lstm, layer 1, reading from the end`."""
    network = trace.network
    words = [network.cell.name]
    if network.num_layers > 1:
        words.append(f"layer {layer % network.num_layers}")
    if network.directions > 1 and direction is not None:
        words.append("reading from the end" if direction % 2 else "reading from the start")
    return ", ".join(words)


def labels_of(labels: str | Sequence[str] | None, steps: int, what: str) -> list[str] | None:
    """One text for each step.

    Raises:
        InputError: if there are more or fewer.
    """
    if labels is None:
        return None
    found = list(labels)
    if len(found) != steps or not all(isinstance(label, str) for label in found):
        raise InputError(
            f"{what} is one text for each of the {steps} steps that this example has; "
            f"found {len(found)}."
        )
    return found
