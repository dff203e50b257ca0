"""Places for the nodes of a graph in columns, so that every edge runs to the right.

Longest paths give the columns, sweeps of barycentres and exchanges the order within each (Sugiyama,
Tagawa & Toda 1981), and springs between linked nodes the heights.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise, product

_SWEEPS = 12
_RELAXATIONS = 600
_LINE = 3.0  # an edge that passes a column reaches so far up and down

Edge = tuple[int, int]
Spot = int | tuple[int, int]  # a node, or (source, column) where edges of a source pass a column
Link = tuple[Spot, Spot]
Extent = tuple[float, float]
Rule = tuple[Spot, Spot, float]  # upper, lower, at least so far apart
Neighbours = Mapping[Spot, Sequence[Spot]]


@dataclass(frozen=True)
class Layers:
    """Where everything stands.

    Attributes:
        columns: what stands in each column, from the top.
        y: the height of each spot's middle.
        paths: edge → the spots between its ends.
    """

    columns: tuple[tuple[Spot, ...], ...]
    y: Mapping[Spot, float]
    paths: Mapping[Edge, tuple[Spot, ...]]


def layered(
    count: int,
    edges: Sequence[Edge],
    extents: Sequence[Extent],
    last: Sequence[int] = (),
    late: Sequence[int] = (),
    gap: float = 14,
) -> Layers:
    """Place the nodes 0 … count-1 of a graph without cycles, numbered in the order of edges.

    Args:
        count: how many nodes. Those that nothing flows into stand in the first column, in order.
        edges: pairs (from, to) with from < to.
        extents: of each node, from its middle line upwards and downwards.
        last: the nodes that stand in the last column.
        late: the nodes that stand as near as possible before what they flow into.
        gap: the least space between two nodes of a column.
    """
    rank = _ranks(count, edges, last, late)
    columns: list[list[Spot]] = [[] for _ in range(max(rank) + 1)]
    for node in range(count):
        columns[rank[node]].append(node)
    paths: dict[Edge, tuple[Spot, ...]] = {}
    links: dict[Link, None] = {}
    for source, target in edges:
        between: list[Spot] = [(source, column) for column in range(rank[source] + 1, rank[target])]
        paths[source, target] = tuple(between)
        way = [source, *between, target]
        links.update(dict.fromkeys(pairwise(way)))
        for spot in between:
            column = columns[spot[1]]  # type: ignore[index]
            if spot not in column:
                column.append(spot)
    columns = _order(columns, list(links))
    y = _heights(columns, list(links), extents, gap)
    return Layers(tuple(map(tuple, columns)), y, paths)


def _ranks(
    count: int, edges: Sequence[Edge], last: Sequence[int], late: Sequence[int]
) -> list[int]:
    rank = [0] * count
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        rank[target] = max(rank[target], rank[source] + 1)
    for node in last:
        rank[node] = max(rank)
    for node in sorted(late, reverse=True):
        after = [rank[target] for source, target in edges if source == node]
        rank[node] = min(after, default=rank[node] + 1) - 1
    return rank


def _order(columns: list[list[Spot]], links: Sequence[Link]) -> list[list[Spot]]:
    """Each column in an order with few crossings.

    The first keeps its own, and so does the last where that costs no crossing.
    """
    before, after = _neighbours(links)
    best, fewest = columns, _crossings(columns, after)
    turned = [columns[0], *(column[::-1] for column in columns[1:-1]), columns[-1]]
    last = len(columns) - 1
    for start, end in product((columns, turned), (last, last + 1)):
        order = [list(column) for column in start]
        for sweep in range(_SWEEPS):
            if sweep % 2 == 0:
                for number in range(len(order) - 2, 0, -1):
                    _sort(order[number], order[number + 1], after)
            else:
                for number in range(1, end):
                    _sort(order[number], order[number - 1], before)
            _exchange(order, end, after)
            crossings = _crossings(order, after)
            if crossings < fewest:
                best, fewest = [list(column) for column in order], crossings
    return best


def _neighbours(links: Sequence[Link]) -> tuple[Neighbours, Neighbours]:
    before: dict[Spot, list[Spot]] = {}
    after: dict[Spot, list[Spot]] = {}
    for source, target in links:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    return before, after


def _sort(column: list[Spot], other: Sequence[Spot], neighbours: Neighbours) -> None:
    """By the mean places of their neighbours in another column."""
    place = {spot: position for position, spot in enumerate(other)}
    means = {}
    for position, spot in enumerate(column):
        near = [place[one] for one in neighbours.get(spot, ())]
        means[spot] = sum(near) / len(near) if near else position
    column.sort(key=means.__getitem__)


def _exchange(columns: Sequence[list[Spot]], end: int, after: Neighbours) -> None:
    """Let neighbours change places where that saves crossings, in columns 1 to `end - 1`."""
    for number in range(1, end):
        column, around = columns[number], columns[number - 1 : number + 2]
        for upper in range(len(column) - 1):
            crossings = _crossings(around, after)
            column[upper : upper + 2] = column[upper : upper + 2][::-1]
            if _crossings(around, after) >= crossings:
                column[upper : upper + 2] = column[upper : upper + 2][::-1]


def _crossings(columns: Sequence[Sequence[Spot]], after: Neighbours) -> int:
    total = 0
    for column, following in pairwise(columns):
        place = {spot: position for position, spot in enumerate(following)}
        ends = [[place[one] for one in after.get(spot, ())] for spot in column]
        for position, mine in enumerate(ends):
            total += sum(a > b for a in mine for others in ends[position + 1 :] for b in others)
    return total


def _heights(
    columns: Sequence[Sequence[Spot]],
    links: Sequence[Link],
    extents: Sequence[Extent],
    gap: float,
) -> dict[Spot, float]:
    """Middles near those of what a spot is linked with, apart from each other and in order.

    The spots of one source's edges are at one height where the order allows it, so that long edges
    are straight.
    """
    apart = {
        (upper, lower): _extent(upper, extents)[1] + _extent(lower, extents)[0] + gap
        for column in columns
        for upper, lower in pairwise(column)
    }
    block = _blocks(columns, apart)
    rules = [(block[upper], block[lower], space) for (upper, lower), space in apart.items()]
    pulls: dict[Spot, list[tuple[Spot, float]]] = {one: [(one, 1e-3)] for one in block.values()}
    for source, target in links:
        a, b = block[source], block[target]
        weight = 3.0 if isinstance(source, tuple) or isinstance(target, tuple) else 1.0
        pulls[a].append((b, weight))
        pulls[b].append((a, weight))
    y = _relaxed(_pushed(dict.fromkeys(block.values(), 0.0), rules), rules, pulls)
    return {spot: y[one] for spot, one in block.items()}


def _relaxed(
    y: Mapping[Spot, float],
    rules: Sequence[Rule],
    pulls: Mapping[Spot, Sequence[tuple[Spot, float]]],
) -> dict[Spot, float]:
    """The heights after springs have pulled for a while, and rules have pushed them apart.

    What is pulled more weighs more, in both movements: so they agree on where to come to rest.
    """
    mass = {one: sum(weight for _, weight in near) for one, near in pulls.items()}
    for _ in range(_RELAXATIONS):
        mean = {one: sum(y[o] * w for o, w in near) / mass[one] for one, near in pulls.items()}
        moved = {one: 0.6 * place + 0.4 * mean[one] for one, place in y.items()}
        for _ in range(4):
            for upper, lower, space in rules:
                lacking = space - (moved[lower] - moved[upper])
                if lacking > 0:
                    share = mass[lower] / (mass[upper] + mass[lower])
                    moved[upper] -= lacking * share
                    moved[lower] += lacking * (1 - share)
        y = moved
    return _pushed(y, rules)


def _extent(spot: Spot, extents: Sequence[Extent]) -> Extent:
    return extents[spot] if isinstance(spot, int) else (_LINE, _LINE)


def _blocks(columns: Sequence[Sequence[Spot]], pairs: Iterable[Link]) -> dict[Spot, Spot]:
    """Spot → the spot whose height it shares."""
    block: dict[Spot, Spot] = {spot: spot for column in columns for spot in column}
    pairs = list(pairs)
    for column in columns:
        for spot in column:
            before = (spot[0], spot[1] - 1) if isinstance(spot, tuple) else None
            if before in block:
                joined = {**block, spot: block[before]}
                if _ordered(joined, pairs):
                    block = joined
    return block


def _ordered(block: Mapping[Spot, Spot], pairs: Iterable[Link]) -> bool:
    """Whether blocks can be sorted from the top."""
    below = TopologicalSorter[Spot]()
    for upper, lower in pairs:
        below.add(block[lower], block[upper])
    try:
        below.prepare()
    except CycleError:
        return False
    return True


def _pushed(y: Mapping[Spot, float], rules: Sequence[Rule]) -> dict[Spot, float]:
    """The heights, each as far down as those above it demand."""
    above: dict[Spot, list[tuple[Spot, float]]] = {one: [] for one in y}
    for upper, lower, space in rules:
        above[lower].append((upper, space))
    sorter = TopologicalSorter({one: [upper for upper, _ in ups] for one, ups in above.items()})
    found: dict[Spot, float] = {}
    for one in sorter.static_order():
        found[one] = max([y[one], *(found[upper] + space for upper, space in above[one])])
    return found
