"""The inside of a cell: its gates and operations, and what flows into which, as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ...cell import Cell
from ...errors import InputError
from . import svg
from .inside import Inside, Node, inside_of
from .layers import Edge, Extent, Layers, Spot, layered
from .svg import Point, Rect, Svg

_MARGIN = 14
_BETWEEN = 52  # between two columns
_OUTSIDE = 26  # from what stands outside to the cell's edge
_NAME = 18  # the room that a name takes above its node
_INSIDE = 40  # from the cell's upper edge to what is inside


def cell_graph(cell: Cell, *, name: str = "cell") -> Svg:
    """Draw one step of a cell from its own equations, from left to right.

    A gate is a filled box: it adds up what flows into it, times its parameters, and applies its
    function; without one, its label is the families of its parameters. Round nodes work unit by
    unit. Each node says its equation under the pointer, and is a group with an id and with
    `data-kind` (input, state, gate, operation, join, next or output) and `data-name`; an edge has
    `data-kind` edge and, as `data-name`, what flows along it.

    Args:
        cell: any cell, one's own too.
        name: what the ids begin with; give two drawings on one page two names.

    Raises:
        InputError: if it is no cell.
    """
    if not isinstance(cell, Cell):
        raise InputError(
            f"the inside is drawn of a Cell, as cells.lstm is one; found {type(cell).__name__}."
        )
    return _Painting(cell, name).drawn()


@dataclass(frozen=True)
class _Places:
    """Where everything stands.

    Attributes:
        boxes: of each node.
        passing: where the edges of a source enter and leave a column that they pass.
        frame: the cell itself: what it is given stands at its left, what it gives at its right.
    """

    boxes: dict[int, Rect]
    passing: dict[Spot, tuple[Point, Point]]
    frame: Rect

    @classmethod
    def of(
        cls, layers: Layers, sizes: Sequence[tuple[float, float]], extents: Sequence[Extent]
    ) -> "_Places":
        reach = {s: extents[s] if isinstance(s, int) else (0.0, 0.0) for s in layers.y}
        top = min(y - reach[spot][0] for spot, y in layers.y.items())
        bottom = max(y + reach[spot][1] for spot, y in layers.y.items())
        down = _MARGIN + _INSIDE - top
        boxes: dict[int, Rect] = {}
        passing: dict[Spot, tuple[Point, Point]] = {}
        x, left, right = float(_MARGIN), 0.0, 0.0
        for number, column in enumerate(layers.columns):
            wide = max((sizes[spot][0] for spot in column if isinstance(spot, int)), default=12)
            if number == len(layers.columns) - 1:
                x += _OUTSIDE
                right = x - _OUTSIDE
            for spot in column:
                y = layers.y[spot] + down
                if isinstance(spot, int):
                    w, h = sizes[spot]
                    boxes[spot] = Rect(x + (wide - w) / 2, y - h / 2, w, h)
                else:
                    passing[spot] = ((x, y), (x + wide, y))
            x += wide
            if number == 0:
                left = x + _OUTSIDE
                x = left
            x += _BETWEEN
        frame = Rect(left, _MARGIN, right - left, bottom - top + 2 * _INSIDE - 14)
        return cls(boxes, passing, frame)

    @property
    def width(self) -> float:
        return max(box.right for box in self.boxes.values()) + _MARGIN

    @property
    def height(self) -> float:
        return self.frame.bottom + _MARGIN


class _Painting:
    def __init__(self, cell: Cell, name: str) -> None:
        self.cell = cell
        self.name = name
        self.inside = inside_of(cell)
        sizes = [_size(node) for node in self.inside.nodes]
        extents = [
            (height / 2 + (_NAME if self._named(node) else 0), height / 2)
            for node, (_, height) in zip(self.inside.nodes, sizes, strict=True)
        ]
        self.layers = _layers(self.inside, extents)
        self.places = _Places.of(self.layers, sizes, extents)

    def _named(self, node: Node) -> bool:
        """Whether its name is written above it."""
        return node.kind in ("gate", "operation") and bool(node.name)

    def drawn(self) -> Svg:
        places, cell = self.places, self.cell
        equations = "; ".join(str(equation) for equation in cell.equations.equations)
        root = svg.document(
            self.name, places.width, places.height, f"Inside {cell.name}", f"One step: {equations}."
        )
        frame = svg.group(root, "cell", f"{cell.name}: one step")
        svg.box(frame, places.frame, 22)
        at = (places.frame.x + places.frame.width / 2, places.frame.y + 20)
        svg.words(frame, at, svg.shortened(cell.name, places.frame.width - 24, 12), "small")
        edges = svg.group(root, "edges")
        for edge in self.inside.edges:
            self._edge(edges, edge)
        nodes = svg.group(root, "nodes")
        for number, node in enumerate(self.inside.nodes):
            self._node(nodes, number, node)
        return svg.finished(root)

    def _edge(self, parent: Element, edge: Edge) -> None:
        source, target = edge
        node, end = self.inside.nodes[source], self.inside.nodes[target]
        told = node.told if not node.name else f"{_written(node)}"
        colour = node.kind if node.kind == "input" else "state"
        found = svg.group(
            parent, f"edge {colour}", told, id=f"{self.name}-edge-{source}-{target}",
            data_kind="edge", data_name=node.name,
        )  # fmt: skip
        start, tip = self._ends(edge)
        between = [at for spot in self.layers.paths[edge] for at in self.places.passing[spot]]
        svg.curve(found, [start, *between, tip], head=end.kind != "join")

    def _ends(self, edge: Edge) -> tuple[Point, Point]:
        """Where an edge leaves its source and where it enters its target, among the others."""
        source, target = edge
        box, other = self.places.boxes[source], self.places.boxes[target]
        start = (box.right, box.center[1])
        if self.inside.nodes[target].kind == "join":
            return start, other.center
        entering = [(self._last(e)[1], e) for e in self.inside.edges if e[1] == target]
        position = [e for _, e in sorted(entering)].index(edge)
        spread = min(13.0, (other.height - 6) / len(entering))
        y = other.center[1] + spread * (position - (len(entering) - 1) / 2)
        inset = 0.0
        if self.inside.nodes[target].kind == "operation":  # round at its ends
            radius = other.height / 2
            inset = radius - max(radius**2 - (y - other.center[1]) ** 2, 0) ** 0.5
        return start, (other.x + inset - 2, y)

    def _last(self, edge: Edge) -> Point:
        """The last point of an edge before its target."""
        path = self.layers.paths[edge]
        if path:
            return self.places.passing[path[-1]][1]
        return self.places.boxes[edge[0]].center

    def _node(self, parent: Element, number: int, node: Node) -> None:
        box = self.places.boxes[number]
        classes = {"next": "state", "join": "operation"}.get(node.kind, node.kind)
        found = svg.group(
            parent, classes, node.told, id=f"{self.name}-{node.kind}-{number}",
            data_kind=node.kind, data_name=node.name,
        )  # fmt: skip
        if node.kind == "join":
            svg.dot(found, box.center, box.width / 2)
            return
        x, y = box.center
        if node.kind in _AT:
            svg.box(found, box, 9)
            svg.symbol(found, (x, y + 5), node.label, _AT[node.kind] if node.label != "t" else "")
            return
        svg.box(found, box, 7 if node.kind == "gate" else box.height / 2)
        classes = "symbol upright" if node.label == "σ" else "sign"
        svg.words(found, (x, y + 5), node.label, classes)
        if self._named(node):
            svg.symbol(found, (x, box.y - 5), node.name)


# What stands outside the cell, and the step that it belongs to.
_AT = {"input": "⟨t⟩", "state": "⟨t−1⟩", "next": "⟨t⟩", "output": "⟨t⟩"}


def _written(node: Node) -> str:
    """A named value at its step."""
    name = node.name.removesuffix("_prev") if node.kind == "state" else node.name
    return node.name if node.label == "t" else f"{name}{_AT.get(node.kind, '⟨t⟩')}"


def _size(node: Node) -> tuple[float, float]:
    """Width and height of a node."""
    if node.kind == "join":
        return 8, 8
    if node.kind in _AT:
        return svg.text_width(node.label, 16) + svg.text_width(_AT[node.kind], 11) + 20, 32
    name = svg.text_width(node.name, 16) - _BETWEEN / 2  # so far may it stand over the edges
    if node.kind == "gate":
        return max(44, svg.text_width(node.label) + 20, name), 34
    return max(30, svg.text_width(node.label) + 18, name), 30


def _layers(inside: Inside, extents: Sequence[Extent]) -> Layers:
    entered = [target for _, target in inside.edges]
    last = [n for n, node in enumerate(inside.nodes) if node.kind in ("next", "output")]
    late = [
        n for n, node in enumerate(inside.nodes)
        if node.kind == "operation" and entered.count(n) == 1
    ]  # fmt: skip
    return layered(len(inside.nodes), inside.edges, extents, last, late)
