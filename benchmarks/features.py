"""Each feature of a layer, switched on in turn, beside the plain layer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import unrolled
from benchmarks.passes import trained
from benchmarks.report import Settings, Table, microseconds, ratio
from benchmarks.turns import Run
from unrolled import Cell, cells
from unrolled.nn import Recurrent, tbptt

KINDS = {"lstm": cells.lstm, "gru": cells.gru}
SHAPES = ((35, 20, 200, 200), (150, 16, 256, 256), (1000, 1, 64, 64))
TINY = ((7, 2, 3, 6),)
CEILING = 1.3  # of the plain layer
P = 0.25  # probability of whatever is dropped
PLAIN, DEEP, FIVE, INFERENCE = "plain", "two layers", "five calls, a fifth each", "inference"


def _nothing(layer: Recurrent, T: int, B: int) -> dict[str, Any]:
    return {}


def _lengths(layer: Recurrent, T: int, B: int) -> dict[str, Any]:
    """Uniform between 0 and T, in no order."""
    return {"lengths": ((torch.randperm(B) + 0.5) / B * T).round().long()}


def _resets(layer: Recurrent, T: int, B: int) -> dict[str, Any]:
    """One in fifty steps."""
    return {"resets": torch.rand(T, B) < 0.02}


def _state(layer: Recurrent, T: int, B: int) -> dict[str, Any]:
    zeros = (torch.zeros(1, B, layer.hidden_size, requires_grad=True) for _ in layer.cell.states)
    state = tuple(zeros)
    return {"state": state if len(state) > 1 else state[0]}


def _masks(layer: Recurrent, T: int, B: int) -> dict[str, Any]:
    return {"masks": layer.draw_masks(T, B)}


def _trained(layer: Recurrent, x: Tensor, given: dict[str, Any]) -> Run:
    state = given.get("state", ())
    leaves = [x, *layer.parameters(), *((state,) if isinstance(state, Tensor) else state)]

    def forward() -> Any:
        found = layer(x, **given)
        return found[2 if "return_all" in given else 0]

    with torch.no_grad():
        dy = tree_map(torch.ones_like, forward())
    return trained(forward, leaves, dy)


def _in_calls(layer: Recurrent, x: Tensor, given: dict[str, Any]) -> Run:
    """A fifth of the sequence a call, each from zeros."""
    x, parameters = x.detach(), list(layer.parameters())
    dy = torch.ones(*x.shape[:-1], layer.hidden_size)

    def run() -> None:
        for part in x.split(-(-len(x) // 5)):
            part = part.detach().requires_grad_()  # a leaf of its own
            y, _ = layer(part)
            torch.autograd.grad(y, [part, *parameters], dy[: len(part)])

    return run


def _in_windows(layer: Recurrent, x: Tensor, given: dict[str, Any]) -> Run:
    """Truncated BPTT in five windows, one behind the other."""
    x, parameters = x.detach(), list(layer.parameters())
    dy = torch.ones(*x.shape[:-1], layer.hidden_size)

    def run() -> None:
        for window in tbptt(x, -(-len(x) // 5)):
            part = window.data.detach().requires_grad_()
            y = window.run(layer, part)
            torch.autograd.grad(y, [part, *parameters], dy[: len(part)])

    return run


def _inferred(layer: Recurrent, x: Tensor, given: dict[str, Any]) -> Run:
    return torch.no_grad()(lambda: layer(x))


def _streamed(layer: Recurrent, x: Tensor, given: dict[str, Any]) -> Run:
    @torch.no_grad()
    def run() -> None:
        state = None
        for x_t in x:
            _, state = layer.step(x_t, state)

    return run


@dataclass(frozen=True)
class Feature:
    """A feature, switched on.

    Attributes:
        cell: what becomes of the cell.
        options: of the layer.
        given: what a call is given beside the input.
        way: the way through the sequence, given a layer, its input and what a call is given.
        plain: the name of what it is set beside.
        ceiling: the most that it may cost, in calls of that; None: as much as it does.
    """

    cell: Callable[[Cell], Cell] = lambda cell: cell
    options: dict[str, Any] = field(default_factory=dict)
    given: Callable[[Recurrent, int, int], dict[str, Any]] = _nothing
    way: Callable[[Recurrent, Tensor, dict[str, Any]], Run] = _trained
    plain: str = PLAIN
    ceiling: float | None = CEILING


FEATURES = {
    PLAIN: Feature(),
    "lengths, uniform": Feature(given=_lengths, ceiling=1.0),
    "resets, one in fifty": Feature(given=_resets),
    "initial state given": Feature(given=_state),
    "initial state learned": Feature(options={"initial_state": "learned"}),
    "all states": Feature(given=lambda *_: {"return_all": True}),
    "recurrent dropout": Feature(partial(unrolled.recurrent_dropout, p=P)),
    "the same, masks given": Feature(partial(unrolled.recurrent_dropout, p=P), given=_masks),
    "candidate dropout": Feature(partial(unrolled.candidate_dropout, p=P)),
    "zoneout": Feature(partial(unrolled.zoneout, p=P)),
    "weight dropout": Feature(options={"weight_dropout": P}),
    "layer norm": Feature(unrolled.layer_norm),
    "clipping": Feature(partial(unrolled.clipped, limit=1.0)),
    "recompute": Feature(options={"recompute": True}),
    # Five forward and five backward passes are set beside as many of a plain layer.
    FIVE: Feature(way=_in_calls, plain=FIVE),
    "truncated BPTT, 5 windows": Feature(way=_in_windows, plain=FIVE),
    "the same, of one call": Feature(way=_in_windows, ceiling=None),
    DEEP: Feature(options={"num_layers": 2}, plain=DEEP),
    "two layers, dropout between": Feature(options={"num_layers": 2, "dropout": P}, plain=DEEP),
    "two layers, locked dropout": Feature(
        options={"num_layers": 2, "dropout": P, "dropout_every": "sequence"}, plain=DEEP
    ),
    INFERENCE: Feature(way=_inferred, plain=INFERENCE),
    "streaming, step by step": Feature(way=_streamed, plain=INFERENCE, ceiling=None),
}


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measure a row for each cell, shape and feature: training, and streams in inference."""
    for kind in settings.chosen(KINDS):
        for shape in TINY if settings.quick else SHAPES:
            settings.say(f"{kind} {shape}")
            runs = {name: _run_of(one, KINDS[kind], shape) for name, one in FEATURES.items()}
            for name, feature in FEATURES.items():
                # In turn with nothing else: a busy machine then slows both down alike.
                times = settings.turns.time({feature.plain: runs[feature.plain], name: runs[name]})
                yield {
                    "cell": kind,
                    "shape": shape,
                    "feature": name,
                    "time": asdict(times[name]),
                    "cost": times[name].median / times[feature.plain].median,
                    "ceiling": feature.ceiling,
                }


def _run_of(feature: Feature, cell: Cell, shape: tuple[int, ...]) -> Run:
    torch.manual_seed(0)
    T, B, I, H = shape  # noqa: E741
    layer = Recurrent(feature.cell(cell), I, H, **feature.options)
    x = torch.randn(T, B, I, requires_grad=True)
    return feature.way(layer, x, feature.given(layer, T, B))


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """One table: for each cell and shape the time of the plain layer, and what features cost."""
    cases = list(dict.fromkeys((row["cell"], tuple(row["shape"])) for row in rows))
    found = {(row["cell"], tuple(row["shape"]), row["feature"]): row for row in rows}
    lines = []
    for name in FEATURES:
        line = [name]
        for case in cases:
            row = found[*case, name]
            line.append(
                f"{microseconds(row['time']['median'] / row['shape'][0])} µs"
                if FEATURES[name].plain == name
                else ratio(row["cost"], ceiling=row["ceiling"])
            )
        lines.append(line)
    return [
        Table(
            "Microseconds a step of a plain layer, and times that with a feature",
            ["", *(f"{cell} {shape}" for cell, shape in cases)],
            lines,
            words=1,
        )
    ]
