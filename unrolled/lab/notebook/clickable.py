"""An SVG whose parts can be clicked: what was clicked last is a value."""

from typing import Any

import anywidget
import traitlets

from ...views.graph import Svg

_SCRIPT = """
export default {
  render({ model, el }) {
    const draw = () => { el.innerHTML = model.get("svg"); };
    el.addEventListener("click", (event) => {
      const part = event.target.closest("[data-step]");
      if (!part || !el.contains(part)) return;
      model.set("clicked", { ...part.dataset });
      model.save_changes();
    });
    model.on("change:svg", draw);
    draw();
  },
};
"""
_STYLE = "[data-step] { cursor: pointer; }"


class Clickable(anywidget.AnyWidget):
    """A drawing that tells which of its parts was clicked.

    Args:
        drawing: an SVG whose parts have `data-step` and other `data-…` attributes.
        clicked: the `data-…` attributes of what counts as clicked at first.
    """

    _esm = _SCRIPT
    _css = _STYLE
    svg = traitlets.Unicode().tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)

    def __init__(self, drawing: Svg | str, **clicked: Any) -> None:
        super().__init__(svg=str(drawing), clicked={k: str(v) for k, v in clicked.items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> "Clickable":
        # marimo copies what is put into a dictionary of elements.
        return Clickable(self.svg, **self.clicked)
