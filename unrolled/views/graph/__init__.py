"""Graphs as SVG: a network written out over its steps, and the inside of a cell."""

from .cell import cell_graph
from .steps import unrolled_graph
from .svg import Svg
from .unrolling import Unrolling

__all__ = ["Svg", "Unrolling", "cell_graph", "unrolled_graph"]
