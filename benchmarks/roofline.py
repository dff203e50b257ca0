"""The roofline: what each layer reaches, under what the machine can."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.machine import Machine

COLOURS = {"LSTM": "tab:blue", "GRU": "tab:orange", "RNN": "tab:green"}


def draw(machine: Machine, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw inference: operations for each byte of U that a step reads, and operations a second.

    Ours are filled, the best library is a ring, and a line joins the two.
    """
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    intensity = np.geomspace(0.3, 200, 200)
    peak = machine.threads * machine.flops
    for level in machine.levels:
        rate = np.minimum(intensity * machine.threads * level.bandwidth, peak)
        axes.plot(intensity, rate / 1e9, color="0.7", linewidth=1, zorder=0)
        axes.annotate(level.name, (intensity[0], rate[0] / 1e9), color="0.4", fontsize=8)
    labelled: set[str] = set()
    for row in rows:
        if row["pass"] != "inference":
            continue
        at = row["operations"] / row["bytes"]
        times = {who: timing["median"] for who, timing in row["times"].items()}
        library = min(times[who] for who in ("torch.nn", "ONNX Runtime") if who in times)
        reached = [row["operations"] / seconds / 1e9 for seconds in (times["ours"], library)]
        colour = COLOURS[row["cell"]]
        axes.plot([at, at], reached, color=colour, linewidth=0.8)
        axes.scatter(at, reached[1], facecolors="white", edgecolors=colour, s=30)
        label = None if row["cell"] in labelled else row["cell"]
        axes.scatter(at, reached[0], color=colour, s=30, label=label)
        labelled.add(row["cell"])
    axes.set(xscale="log", yscale="log", ylabel="GF/s")
    axes.set_xlabel("operations for each byte of U read")
    axes.set_title("Inference: ours filled, the best library a ring", fontsize=10)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)
