"""Deep networks: layers that read what the layer below says."""

import marimo as mo
import numpy as np
from matplotlib.figure import Figure

from unrolled import cells, lab

from ..page import Controls, Riddle, explained, row, slider

STEPS, UNITS, INPUTS = 4, 5, 3
CELLS = {cell.name: cell for cell in (cells.simple, cells.gru, cells.lstm)}


def network(cell: str, layers: int) -> lab.Network:
    """Some layers of five units that read three numbers."""
    return lab.Network.init(CELLS[cell], INPUTS, UNITS, num_layers=layers, rng=4)


def count(one: lab.Network) -> list[int]:
    """How many parameters each layer has."""
    return [sum(block.size for block in layer[0].values()) for layer in one.params]


RIDDLE = Riddle(
    f"How many parameters has a simple network with 10 layers of {UNITS} units that reads {INPUTS} "
    "numbers at each step, without an output layer?",
    float(sum(count(network("simple", 10)))),
)


def controls() -> mo.ui.dictionary:
    """How many layers, and of which cell."""
    return mo.ui.dictionary(
        {
            "layers": slider(1, 4, 1, 3, "layers"),
            "cell": mo.ui.dropdown(list(CELLS), "simple", label="cell"),
            "guess": RIDDLE.guess(),
        }
    )


def reach(gradients: lab.Gradients) -> Figure:
    """The norm of the loss's gradient at each layer and step."""
    layers = gradients.trace.network.num_layers
    norms = [np.linalg.norm(gradients["h", layer, 0][:, 0], axis=-1) for layer in range(layers)]
    figure = Figure(figsize=(6, 0.8 + 0.5 * layers), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(norms[::-1], cmap="Reds", vmin=0, aspect="auto")
    ax.set_xticks(range(STEPS), [str(step) for step in range(1, STEPS + 1)])
    ax.set_yticks(range(layers), [f"layer {layer}" for layer in range(layers, 0, -1)])
    ax.set_xlabel("step")
    figure.colorbar(image, label=r"$\|\mathrm{d}h\|$")
    return figure


def view(controls: Controls) -> mo.Html:
    """The graph, the parameters, and how far the gradient reaches."""
    now = controls.value
    one = network(now["cell"], now["layers"])
    trace = one.trace(np.random.default_rng(0).standard_normal((STEPS, INPUTS)))
    dy = np.zeros_like(trace.y)
    dy[-1] = 1
    gradients = trace.backward(dy)
    number = lab.at(trace, f"h_1[{now['layers']}]<{STEPS}>")
    sizes = count(one)
    return mo.vstack(
        [
            mo.md(
                r"""
                # Deep

                The output of one layer is the input of the next, step by step. Each layer has its
                own parameters and its own state, and time runs through all of them. Three layers
                are already a deep recurrent network: unrolled over a hundred steps, a gradient
                can travel up and down through them, and a hundred steps back.
                """
            ),
            row([controls["layers"], controls["cell"]]),
            lab.unrolled_graph(trace, name="deep"),
            mo.md(
                f"{' + '.join(map(str, sizes))} = {sum(sizes)} parameters. The topmost unit at the "
                "last step:"
            ),
            explained(number),
            mo.md("The loss looks at the last output of the top layer. Its gradient reaches:"),
            reach(gradients),
            RIDDLE.view(controls["guess"]),
            mo.accordion(
                {
                    "Something to try": mo.md(
                        "Why has the first layer another number of parameters than the others? "
                        "With how many inputs would all have the same?"
                    ),
                    "In code": mo.md(
                        "```python\n"
                        "network = lab.Network.init(cells.gru, 3, 5, num_layers=3)\n"
                        'trace["h", 2]        # the third layer, (T, B, H)\n'
                        'lab.at(trace, "h_1[3]<4>")\n'
                        "```"
                    ),
                }
            ),
        ]
    )
