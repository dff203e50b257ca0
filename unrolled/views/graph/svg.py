"""Drawings as values, and the few shapes that they are made of."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

Point = tuple[float, float]

# Middle tones that stand out on white and on black, with fills that let the page through; words
# and plain lines take the page's own colour. A page may set the properties --unrolled-…. The last
# rules are for a drawing that is a document of its own, which has no page to take a colour from.
STYLE = """
.unrolled-graph {
  --cell: var(--unrolled-cell, #1c9a86); --second: var(--unrolled-second, #8a63d2);
  --input: var(--unrolled-input, #3a7fc8); --output: var(--unrolled-output, #b8579b);
  --gate: var(--unrolled-gate, #c08412); --gradient: var(--unrolled-gradient, #dd4b3e);
  --highlight: var(--unrolled-highlight, #ee6c0a);
  font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  fill: none; stroke-linecap: round; stroke-linejoin: round; max-width: 100%; height: auto;
}
.unrolled-graph text { fill: currentColor; stroke: none; text-anchor: middle; font-size: 13px; }
.unrolled-graph .symbol {
  font-family: "STIX Two Text", "Cambria", "Times New Roman", "Liberation Serif", serif;
  font-style: italic; font-size: 16px;
}
.unrolled-graph .upright { font-style: normal; }
.unrolled-graph .sign { font-size: 14.5px; }
.unrolled-graph .raised { font-style: normal; font-size: 11px; }
.unrolled-graph .small { font-size: 11.5px; opacity: 0.72; }
.unrolled-graph .part { font-size: 13px; letter-spacing: 0.06em; opacity: 0.8; }
.unrolled-graph .line { stroke: currentColor; stroke-width: 1.6; }
.unrolled-graph .head { fill: currentColor; }
.unrolled-graph .hit { stroke: transparent; stroke-width: 14; pointer-events: stroke; }
.unrolled-graph .shape { stroke-width: 1.6; }
.unrolled-graph .state .line { stroke-opacity: 0.75; }
.unrolled-graph .state .head { fill-opacity: 0.85; }
.unrolled-graph .state .shape { stroke: currentColor; fill: currentColor; fill-opacity: 0.08; }
.unrolled-graph .input .line, .unrolled-graph .input .shape { stroke: var(--input); }
.unrolled-graph .input .head { fill: var(--input); }
.unrolled-graph .input .shape { fill: var(--input); fill-opacity: 0.16; }
.unrolled-graph .output .line, .unrolled-graph .output .shape { stroke: var(--output); }
.unrolled-graph .output .head { fill: var(--output); }
.unrolled-graph .output .shape { fill: var(--output); fill-opacity: 0.16; }
.unrolled-graph .feedback .line {
  stroke: var(--output); stroke-width: 2; stroke-dasharray: 0.1 5;
}
.unrolled-graph .feedback .head { fill: var(--output); }
.unrolled-graph .cell .shape { stroke: var(--cell); fill: var(--cell); fill-opacity: 0.14; }
.unrolled-graph .second .cell .shape, .unrolled-graph .second.cell .shape {
  stroke: var(--second); fill: var(--second);
}
.unrolled-graph .gate .shape, .unrolled-graph .second .gate .shape {
  stroke: var(--gate); fill: var(--gate); fill-opacity: 0.24;
}
.unrolled-graph .operation .shape { stroke: currentColor; fill: currentColor; fill-opacity: 0.05; }
.unrolled-graph .panel { fill: currentColor; fill-opacity: 0.045; }
.unrolled-graph .cut .line, .unrolled-graph .cut .head { opacity: 0.25; }
.unrolled-graph .ended { opacity: 0.4; }
.unrolled-graph .gradient .line { stroke: var(--gradient); stroke-dasharray: 5 4; }
.unrolled-graph .gradient .head { fill: var(--gradient); }
.unrolled-graph .highlight .line { stroke: var(--highlight); stroke-width: 3.2; stroke-opacity: 1; }
.unrolled-graph .gradient.highlight .line { stroke-dasharray: none; }
.unrolled-graph .highlight .head { fill: var(--highlight); fill-opacity: 1; }
.unrolled-graph .highlight.highlight > .shape { stroke: var(--highlight); stroke-width: 3.2; }
.unrolled-graph .edge .line { stroke-opacity: 1; stroke-width: 1.5; }
:root.unrolled-graph { color: #1d2329; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root.unrolled-graph { color: #e9e7e2; } }
"""


@dataclass(frozen=True)
class Svg:
    """A drawing. Notebooks show it with its hover names; `str(svg)` is its text.

    Attributes:
        text: the SVG, a whole XML document or a part of a page.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        # Inline: as an image of its own, notebooks would show it without hover names.
        return self.text

    def save(self, path: str | Path) -> Path:
        """Write the drawing to a file, and give its path back."""
        path = Path(path)
        path.write_text(self.text, encoding="utf-8")
        return path


@dataclass(frozen=True)
class Rect:
    """A box: its left upper corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def center(self) -> Point:
        """Its middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height


def document(name: str, width: float, height: float, title: str, description: str) -> Element:
    """An empty drawing.

    Args:
        name: what the ids of its elements begin with.
        width: in pixels.
        height: in pixels.
        title: what it is.
        description: what it shows, for those who do not see it.
    """
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {number(width)} {number(height)}",
            "width": number(width),
            "height": number(height),
            "class": "unrolled-graph",
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc",
        },
    )
    SubElement(root, "title", id=f"{name}-title").text = readable(title)
    SubElement(root, "desc", id=f"{name}-desc").text = readable(description)
    SubElement(root, "style").text = STYLE
    return root


def finished(root: Element) -> Svg:
    """The drawing as a value."""
    return Svg(ElementTree.tostring(root, encoding="unicode"))


def group(parent: Element, classes: str, title: str = "", **attributes: object) -> Element:
    """A group that says what it is under the pointer; `data_step=3` becomes `data-step="3"`."""
    named = {key.replace("_", "-"): readable(str(v)) for key, v in attributes.items()}
    found = SubElement(parent, "g", {"class": classes, **named})
    if title:
        SubElement(found, "title").text = readable(title)
    return found


def box(parent: Element, rect: Rect, radius: float, classes: str = "shape") -> None:
    """A rounded box."""
    attributes = {"x": rect.x, "y": rect.y, "width": rect.width, "height": rect.height}
    SubElement(
        parent,
        "rect",
        {"class": classes, **{k: number(v) for k, v in attributes.items()}, "rx": number(radius)},
    )


def dot(parent: Element, at: Point, radius: float) -> None:
    """A circle."""
    attributes = {"cx": number(at[0]), "cy": number(at[1]), "r": number(radius)}
    SubElement(parent, "circle", {"class": "shape", **attributes})


def words(parent: Element, at: Point, text: str, classes: str = "") -> Element:
    """A line of text around a point of its base line."""
    attributes = {"x": number(at[0]), "y": number(at[1])}
    found = SubElement(parent, "text", {"class": classes, **attributes} if classes else attributes)
    found.text = readable(text)
    return found


def symbol(parent: Element, at: Point, letter: str, raised: str = "") -> None:
    """A letter of a formula with what stands above it at its right: h⟨3⟩."""
    text = words(parent, at, letter, "symbol")
    if raised:
        SubElement(text, "tspan", {"class": "raised", "dy": "-5"}).text = readable(raised)


def arrow(parent: Element, points: Sequence[Point], radius: float = 9) -> None:
    """A line through points, its corners rounded, with a head at the last one."""
    (x0, y0), (x, y) = points[-2], points[-1]
    length = max(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5, 1e-9)
    dx, dy = (x - x0) / length, (y - y0) / length
    base = (x - 7 * dx, y - 7 * dy)
    path = rounded([*points[:-1], base], radius)
    SubElement(parent, "path", {"class": "hit", "d": path})
    SubElement(parent, "path", {"class": "line", "d": path})
    _head(parent, (x, y), (dx, dy))


def curve(parent: Element, points: Sequence[Point], head: bool = True) -> None:
    """A smooth line to the right through points, with a head at the last one if it has one."""
    *passed, (x, y) = points
    end = (x - 7, y) if head else (x, y)
    parts = [f"M{_pair(points[0])}"]
    for (x0, y0), (x1, y1) in zip(points, [*passed[1:], end], strict=False):
        middle = (x0 + x1) / 2
        parts.append(f"C{_pair((middle, y0))} {_pair((middle, y1))} {_pair((x1, y1))}")
    path = " ".join(parts)
    SubElement(parent, "path", {"class": "hit", "d": path})
    SubElement(parent, "path", {"class": "line", "d": path})
    if head:
        _head(parent, (x, y), (1, 0))


def _head(parent: Element, at: Point, along: Point) -> None:
    """The head of an arrow: its tip, and the direction that it points in, of length one."""
    (x, y), (dx, dy) = at, along
    left = (x - 9 * dx - 4 * dy, y - 9 * dy + 4 * dx)
    right = (x - 9 * dx + 4 * dy, y - 9 * dy - 4 * dx)
    outline = f"M{_pair((x, y))} L{_pair(left)} L{_pair(right)} Z"
    SubElement(parent, "path", {"class": "head", "d": outline})


def rounded(points: Sequence[Point], radius: float) -> str:
    """The path through points, with round corners."""
    parts = [f"M{_pair(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _toward(corner, before, radius), _toward(corner, after, radius)
        parts.append(f"L{_pair(start)} Q{_pair(corner)} {_pair(end)}")
    return " ".join([*parts, f"L{_pair(points[-1])}"])


def _toward(corner: Point, other: Point, radius: float) -> Point:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(radius, length / 2) / length
    return corner[0] + dx * share, corner[1] + dy * share


def _pair(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text_width(text: str, size: float = 13) -> float:
    """About how wide a text is, in pixels."""
    wide = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
    return 0.58 * size * wide


def shortened(text: str, width: float, size: float = 13) -> str:
    """The text, or its beginning and "…" if it is wider."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def visible(text: str) -> str:
    """Words that can be seen: blanks and line ends as their signs."""
    return text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") if text.isspace() else text


def readable(text: str) -> str:
    """The text with nothing that XML cannot hold: pictures of control characters instead."""
    return "".join(map(_allowed, text))


def _allowed(letter: str) -> str:
    code = ord(letter)
    if code < 0x20 and letter not in "\n\t":
        return chr(0x2400 + code)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF or code in (0xFFFE, 0xFFFF) else letter
