"""Graphs as SVG: what is drawn, what it says, and that nothing stands in anything's way."""

import itertools
import re
from collections import Counter
from dataclasses import FrozenInstanceError
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from own_cells import OWN_CELLS
from random_cells import random_cells

from unrolled import Cell, InputError, cells
from unrolled.language.operations import ELEMENTWISE, REDUCTIONS
from unrolled.network import Network
from unrolled.views.graph import Svg, Unrolling, cell_graph, unrolled_graph
from unrolled.views.graph.inside import SIGNS, inside_of

NAMESPACE = "{http://www.w3.org/2000/svg}"
CELLS = {**cells.catalogue(), **OWN_CELLS}
NONE = None


def parsed(svg):
    assert isinstance(svg, Svg)
    return ElementTree.fromstring(str(svg))


def of_kind(root, kind):
    return [g for g in root.iter(f"{NAMESPACE}g") if g.get("data-kind") == kind]


def told(group):
    return group.find(f"{NAMESPACE}title").text


def kinds(root):
    return Counter(g.get("data-kind") for g in root.iter() if g.get("data-kind"))


def network(cell, layers=1, directions=1, seed=0):
    return Network.init(cell, 3, 4, layers, directions == 2, seed)


def run_of(net, length=4, batch=2, **options):
    generator = np.random.default_rng(1)
    states = tuple(
        generator.normal(size=(net.num_layers * net.directions, batch, 4)) for _ in net.cell.states
    )
    return net.trace(generator.normal(size=(length, batch, 3)), states, **options)


# geometry


def rectangle(element):
    x, y, width, height = (float(element.get(k)) for k in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def text_rectangle(element):
    """About where a text is: letters of the sizes that the style gives."""
    x, y = float(element.get("x")), float(element.get("y"))
    size = {"symbol": 16, "small": 11.5}.get((element.get("class") or "").split(" ")[0], 13)
    raised = "".join(t.text for t in element)
    half = (len(element.text) * size + len(raised) * 11) * 0.5 / 2
    return x - half, y - 0.7 * size, x + half, y + 0.2 * size


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def points(path):
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.get("d"))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def heads(root):
    return [
        points(path)[0] for path in root.iter(f"{NAMESPACE}path") if path.get("class") == "head"
    ]


def boxes(root, *kinds):
    """The outline of every cell, or of every node."""
    return [rectangle(shape) for shape in shapes_of(root, *kinds)]


def shapes_of(root, *kinds):
    groups = [group for kind in kinds for group in of_kind(root, kind)]
    return [group.find(f"{NAMESPACE}rect") for group in groups]


def within(x, y, box, radius):
    """Whether a point is inside a box with round corners."""
    dx = max(box[0] + radius - x, x - box[2] + radius, 0)
    dy = max(box[1] + radius - y, y - box[3] + radius, 0)
    if dx and dy:
        return dx * dx + dy * dy < radius * radius
    return box[0] < x < box[2] and box[1] < y < box[3]


def assert_tidy(root, *kinds, texts=True):
    """Everything in the view, no two boxes or texts over each other, no head inside a box."""
    _, _, width, height = map(float, root.get("viewBox").split())
    corners = [point for path in root.iter(f"{NAMESPACE}path") for point in points(path)]
    shapes = [rectangle(element) for element in root.iter(f"{NAMESPACE}rect")]
    words = [text_rectangle(element) for element in root.iter(f"{NAMESPACE}text")]
    corners += [corner for r in [*shapes, *words] for corner in (r[:2], r[2:])]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in corners)
    drawn = boxes(root, *kinds)
    rounds = [float(shape.get("rx")) for shape in shapes_of(root, *kinds)]
    assert not [pair for pair in itertools.combinations(drawn, 2) if overlap(*pair)]
    for x, y in heads(root):
        assert not any(within(x, y, *one) for one in zip(drawn, rounds, strict=True))
    if texts:
        assert not [pair for pair in itertools.combinations(words, 2) if overlap(*pair)]


# the unrolled graph

SHAPES = list(itertools.product(["simple", "lstm", "peephole_lstm"], [1, 2, 5], [1, 3], [1, 2]))


@pytest.mark.parametrize(("name", "steps", "layers", "directions"), SHAPES)
def test_every_box_and_arrow_is_there(name, steps, layers, directions):
    cell = CELLS[name]
    root = parsed(unrolled_graph(network(cell, layers, directions), steps))
    boxes, gates = steps * layers * directions, 4 if "lstm" in name else 0
    expected = {
        "cell": boxes,
        "gate": gates * boxes,
        "input": boxes,
        "output": steps,
        "state": len(cell.states) * layers * directions * (steps + 1),
        "join": boxes * (directions == 2),
        "side-by-side": layers * steps * (directions == 2),
    }
    assert kinds(root) == Counter({kind: count for kind, count in expected.items() if count})
    assert_tidy(root, "cell", "side-by-side")
    assert_tidy(root, "gate")


@pytest.mark.parametrize(("name", "steps", "layers", "directions"), SHAPES)
def test_gradients_run_back_along_every_arrow_but_the_last_states(name, steps, layers, directions):
    cell = CELLS[name]
    root = parsed(unrolled_graph(network(cell, layers, directions), steps, gradient=True))
    found = kinds(root)
    last = len(cell.states) * layers * directions
    assert found["gradient"] == sum(found[k] for k in ("input", "output", "state", "join")) - last
    assert_tidy(root, "cell", "side-by-side")


TYPES = {
    "one to one": ({"inputs": ("",), "outputs": ("",)}, (1, 1, 0)),
    "one to many": (
        {"inputs": ("", NONE, NONE, NONE), "outputs": ("",) * 4, "feedback": (1, 2, 3)},
        (1, 4, 3),
    ),
    "many to one": ({"inputs": ("",) * 4, "outputs": (NONE, NONE, NONE, "Scottish")}, (4, 1, 0)),
    "many to many": ({"inputs": tuple("neur"), "outputs": tuple("euro")}, (4, 4, 0)),
    "of unequal length": (
        {
            "inputs": ("g", "o", NONE, NONE, NONE, NONE),
            "outputs": (NONE, NONE, *"went"),
            "feedback": (3, 4, 5),
            "parts": (("encoder", 2), ("decoder", 4)),
        },
        (2, 4, 3),
    ),
}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", TYPES)
def test_the_types_of_networks(kind, layers):
    fields, (inputs, outputs, feedback) = TYPES[kind]
    unrolling = Unrolling(cells.lstm, **fields, layers=layers, output="ŷ")
    root = parsed(unrolled_graph(unrolling))
    steps = len(fields["inputs"])
    found = kinds(root)
    assert found["cell"] == layers * steps
    assert found["state"] == 2 * layers * (steps + 1)
    first = [g for g in of_kind(root, "input") if g.get("data-layer") == "1"]
    assert (len(first), found["output"], found["feedback"]) == (inputs, outputs, feedback)
    assert_tidy(root, "cell")


def test_parts_count_their_own_steps_and_hand_the_state_on():
    root = parsed(unrolled_graph(Unrolling(cells.lstm, **TYPES["of unequal length"][0])))
    steps = [(g.get("data-part"), g.get("data-step")) for g in of_kind(root, "cell")]
    assert steps == [
        ("encoder", "1"),
        ("encoder", "2"),
        *(("decoder", str(t)) for t in range(1, 5)),
    ]
    lines = [told(g).split("\n")[0] for g in of_kind(root, "state") if g.get("data-name") == "h"]
    assert lines[:3] == [
        "encoder h⟨0⟩: state h before the first step",
        "encoder h⟨1⟩: state h after step 1",
        "encoder h⟨2⟩: state h after step 2",
    ]
    texts = ["".join(t.itertext()) for t in root.iter(f"{NAMESPACE}text")]
    assert {"encoder", "decoder", "g", "o", "w", "e", "n", "t"} <= set(texts)


def test_names_are_the_fields_and_data_are_for_programs():
    root = parsed(unrolled_graph(network(cells.lstm, 2, 2), 3, name="one"))
    (arrow,) = [
        g for g in of_kind(root, "state")
        if (g.get("data-name"), g.get("data-layer"), g.get("data-direction"), g.get("data-step"))
        == ("c", "2", "1", "3")
    ]  # fmt: skip
    assert told(arrow) == "←c[2]⟨3⟩: state c after step 3"
    assert arrow.get("id") == "one-state-c-2-1-3"
    assert "".join(arrow.find(f"{NAMESPACE}text").itertext()) == "←c[2]⟨3⟩"
    gate = next(g for g in of_kind(root, "gate") if g.get("data-name") == "f")
    assert told(gate) == "→f[1]⟨1⟩: f = sigmoid(W.f @ x + U.f @ h_prev + b.f)"
    alone = parsed(unrolled_graph(cells.lstm, 2))
    assert told(of_kind(alone, "state")[1]) == "h⟨1⟩: state h after step 1"
    assert [told(g) for g in of_kind(alone, "output")] == ["y⟨1⟩: the output", "y⟨2⟩: the output"]


def test_the_reverse_direction_runs_to_the_left():
    root = parsed(unrolled_graph(network(cells.gru, 1, 2), 3))
    for arrow in of_kind(root, "state"):
        line = next(p for p in arrow.iter(f"{NAMESPACE}path") if p.get("class") == "line")
        (x0, y0), (x1, y1) = points(line)[0], points(line)[-1]
        assert y0 == y1
        assert (x1 < x0) == (arrow.get("data-direction") == "1")
    steps = [g.get("data-step") for g in of_kind(root, "state") if g.get("data-direction") == "1"]
    assert steps == ["0", "3", "2", "1"]


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_every_cell_is_unrolled(cell):
    both = Unrolling(cell, ("",) * 3, ("",) * 3, 2, 2)
    for unrolling in (Unrolling.of(cell, 2), both):
        root = parsed(unrolled_graph(unrolling, gradient=True))
        states = cell.states
        assert {g.get("data-name") for g in of_kind(root, "state")} == set(states)
        named = {e.name for e in cell.equations.equations} - set(states)
        assert {g.get("data-name") for g in of_kind(root, "gate")} == named
        assert_tidy(root, "cell", "side-by-side")
        assert_tidy(root, "gate")


# numbers


def numbers(line):
    return [float(n) for n in line.partition("): ")[2].split(", ") if n != "…"]


def assert_says(line, values):
    np.testing.assert_allclose(numbers(line), values, rtol=1e-3)


@pytest.mark.parametrize(("cell", "directions"), [("lstm", 1), ("gru", 2), ("coupled_lstm", 2)])
def test_under_the_pointer_are_the_numbers_of_the_trace(cell, directions):
    net = network(CELLS[cell], 2, directions)
    trace = run_of(net)
    root = parsed(unrolled_graph(trace, example=2))
    checked = 0
    for group in [*of_kind(root, "gate"), *of_kind(root, "state"), *of_kind(root, "join")]:
        name, step = group.get("data-name"), int(group.get("data-step"))
        layer, direction = int(group.get("data-layer")) - 1, int(group.get("data-direction"))
        lines = told(group).split("\n")
        line = lines[0] if group.get("data-kind") == "gate" else lines[1]
        if step == 0:
            first = -1 if direction else 0
            assert_says(line, trace[f"{name}_prev", layer, direction][first, 1])
        else:
            assert_says(line, trace[name, layer, direction][step - 1, 1])
        checked += 1
    assert checked > 30
    for group in of_kind(root, "output"):
        assert_says(told(group).split("\n")[1], trace.y[int(group.get("data-step")) - 1, 1])
    for group in of_kind(root, "input"):
        step, layer = int(group.get("data-step")) - 1, int(group.get("data-layer")) - 1
        read = trace["x", layer][step, 1]
        assert_says(told(group).split("\n")[1], read)


def test_a_cell_says_every_named_value():
    trace = run_of(network(cells.gru))
    box = of_kind(parsed(unrolled_graph(trace)), "cell")[2]
    said = dict(line.split(" ", 1) for line in told(box).split("\n")[1:] if "⟩ (" in line)
    for name in cells.gru.names:
        assert_says(said[f"{name}⟨3⟩"], trace[name][2, 0])


@pytest.mark.parametrize("directions", [1, 2])
def test_under_the_pointer_of_gradients_are_the_gradients(directions):
    trace = run_of(network(cells.lstm, 2, directions))
    generator = np.random.default_rng(2)
    last = tuple(generator.normal(size=state.shape) for state in trace.state)
    gradients = trace.backward(generator.normal(size=trace.y.shape), last)
    root = parsed(unrolled_graph(gradients))
    found = Counter()
    for group in of_kind(root, "gradient"):
        name, step = group.get("data-name"), int(group.get("data-step")) - 1
        layer, direction = int(group.get("data-layer")) - 1, int(group.get("data-direction"))
        line = told(group).split("\n")[-1]
        if name.endswith("_prev"):
            assert_says(line, gradients[name[1:], layer, direction][step, 0])
        elif name.endswith("_last"):
            position = trace.network.cell.states.index(name[1:2])
            assert_says(line, last[position][layer * directions + direction, 0])
        elif name == "dy":
            assert_says(line, gradients.y[step, 0])
        elif name == "dx":
            assert_says(line, sum(one.x for one in gradients.layers[layer])[step, 0])
        found[name] += 1
    arrows = 2 * directions
    assert found["dh_prev"] == found["dc_prev"] == 4 * arrows
    assert found["dh_last"] == found["dc_last"] == arrows
    assert (found["dy"], found["dx"]) == (4, 4 * arrows)


def test_the_last_states_gradient_has_an_arrow_only_if_there_is_one():
    trace = run_of(network(cells.gru))
    names = [
        g.get("data-name") for g in of_kind(parsed(unrolled_graph(trace.backward())), "gradient")
    ]
    assert "dh_last" not in names


def test_rows_that_end_and_rows_that_start_anew():
    resets = np.zeros((5, 2), bool)
    resets[2, 0] = True
    trace = run_of(network(cells.gru), 5, lengths=[4, 5], resets=resets)
    root = parsed(unrolled_graph(trace))
    faint = [g.get("data-step") for g in of_kind(root, "cell") if "ended" in g.get("class")]
    assert faint == ["5"]
    assert "example 1 ends with step 4" in told(of_kind(root, "output")[4])
    cut = [g for g in of_kind(root, "state") if " cut" in g.get("class")]
    assert [told(g).split("\n")[-1] for g in cut] == ["cut by a reset before step 3"]
    other = parsed(unrolled_graph(trace, example=2))
    assert not [g for g in other.iter() if set((g.get("class") or "").split()) & {"cut", "ended"}]


def test_values_that_were_not_kept_say_so():
    net = network(cells.gru)
    root = parsed(unrolled_graph(net.trace(np.zeros((2, 3)), names=["z"])))
    said = {g.get("data-name"): told(g).split("\n")[0] for g in of_kind(root, "gate")}
    assert said["r"] == "r⟨2⟩ not kept in this trace"
    assert said["z"].startswith("z⟨2⟩ (4,): ")


def test_long_vectors_are_shortened():
    trace = Network.init(cells.simple, 3, 40, rng=0).trace(np.ones((2, 3)))
    line = told(of_kind(parsed(unrolled_graph(trace)), "output")[0]).split("\n")[1]
    assert line.startswith("(40,): ")
    assert line.endswith(", …")
    assert_says(line, trace.y[0, 0, :12])


def test_numbers_of_an_unrolling_and_of_its_parts():
    encoder, decoder = network(cells.gru, seed=1), network(cells.gru, seed=2)
    first, second = run_of(encoder, 2), run_of(decoder, 3)
    unrolling = Unrolling(
        cells.gru, ("a", "b", NONE, NONE, NONE), (NONE, NONE, "c", "d", "e"),
        parts=(("encoder", 2), ("decoder", 3)),
    )  # fmt: skip
    root = parsed(unrolled_graph(unrolling, values=[first, second]))
    updates = [told(g).split("\n")[0] for g in of_kind(root, "gate") if g.get("data-name") == "z"]
    for line, values in zip(updates, [*first["z"][:, 0], *second["z"][:, 0]], strict=True):
        assert_says(line, values)
    with pytest.raises(InputError, match=r"one run for each of the 2 parts; found 1"):
        unrolled_graph(unrolling, values=first)
    with pytest.raises(InputError, match=r"the run of the decoder is one of cell 'gru'"):
        unrolled_graph(unrolling, values=[first, run_of(network(cells.lstm))])
    with pytest.raises(InputError, match=r"3 steps are drawn; the run has 2"):
        unrolled_graph(unrolling, values=[first, first])


# steps left out


@pytest.mark.parametrize("directions", [1, 2])
def test_steps_are_left_out_before_the_last(directions):
    trace = run_of(network(cells.lstm, 1, directions), 20)
    root = parsed(unrolled_graph(trace, 4))
    steps = [g.get("data-step") for g in of_kind(root, "cell") if g.get("data-direction") == "0"]
    assert steps == ["1", "2", "3", "20"]
    arrows = [
        g.get("data-step") for g in of_kind(root, "state")
        if (g.get("data-name"), g.get("data-direction")) == ("c", "0")
    ]  # fmt: skip
    assert arrows == ["0", "1", "2", "3", "19", "20"]
    texts = [t.text for t in root.iter(f"{NAMESPACE}text")]
    assert texts.count("…") == 2 * directions
    assert_tidy(root, "cell", "side-by-side")
    for group in of_kind(root, "state"):
        step, way = int(group.get("data-step")), int(group.get("data-direction"))
        if step:
            values = trace[group.get("data-name"), 0, way][step - 1, 0]
            assert_says(told(group).split("\n")[1], values)


def test_a_trace_shows_up_to_eight_steps_and_a_letter_may_name_the_last():
    short, long = (run_of(network(cells.simple), length) for length in (8, 9))
    assert kinds(parsed(unrolled_graph(short)))["cell"] == 8
    assert of_kind(parsed(unrolled_graph(long)), "cell")[-1].get("data-step") == "9"
    assert kinds(parsed(unrolled_graph(long)))["cell"] == 8
    root = parsed(unrolled_graph(Unrolling(cells.simple, ("",) * 3, ("",) * 3, total="T")))
    names = [told(g).partition(":")[0] for g in of_kind(root, "state")]
    assert names == ["h⟨0⟩", "h⟨1⟩", "h⟨2⟩", "h⟨T−1⟩", "h⟨T⟩"]


# highlights


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (2, ["gru[1]⟨2⟩", "gru[2]⟨2⟩"]),
        ("h[2]<3>", ["h[2]⟨3⟩"]),
        ("h⟨3⟩[2]", ["h[2]⟨3⟩"]),
        ("h<3>", ["h[1]⟨3⟩", "h[2]⟨3⟩"]),
        (["x<1>", "z[2]<1>"], ["x⟨1⟩", "x[2]⟨1⟩", "z[2]⟨1⟩"]),
        ("dh_prev[1]<2>", ["dh_prev[1]⟨2⟩"]),
        ("y", ["y⟨1⟩", "y⟨2⟩", "y⟨3⟩"]),
    ],
)
def test_highlights(wanted, found):
    root = parsed(unrolled_graph(network(cells.gru, 2), 3, highlight=wanted, gradient=True))
    marked = [g for g in root.iter() if "highlight" in (g.get("class") or "").split()]
    assert [re.split("[: ]", told(g))[0] for g in marked] == found


def test_a_highlight_of_one_direction_and_of_one_part():
    root = parsed(unrolled_graph(network(cells.gru, 1, 2), 3, highlight="←h<2>"))
    (marked,) = [g for g in of_kind(root, "state") if "highlight" in g.get("class")]
    assert marked.get("data-direction") == "1"
    root = parsed(
        unrolled_graph(
            Unrolling(cells.gru, **TYPES["of unequal length"][0]), highlight="decoder h<2>"
        )
    )
    (marked,) = [g for g in of_kind(root, "state") if "highlight" in g.get("class")]
    assert marked.get("data-part") == "decoder"


@pytest.mark.parametrize("wanted", [7, "k<1>", "h<9>", ["h<1>", "dh_prev<1>"]])
def test_a_highlight_of_nothing_raises(wanted):
    with pytest.raises(InputError, match=r"is nothing in this graph; it has steps and names such"):
        unrolled_graph(cells.gru, highlight=wanted)
    with pytest.raises(InputError, match=r"names nothing"):
        unrolled_graph(cells.gru, highlight="[2]")


# what does not fit


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": (), "outputs": ()}, "one entry of inputs and one of outputs for each step"),
        ({"inputs": ("",), "outputs": ("", "")}, "found 1 and 2"),
        ({"layers": 0}, "one layer or more"),
        ({"directions": 3}, "1 or 2 directions"),
        ({"feedback": (3,)}, "are not the last of 3"),
        ({"feedback": (0,)}, "feeds back outputs of steps"),
        ({"outputs": (None, "", ""), "feedback": (1,)}, "feeds back outputs of steps"),
        ({"directions": 2, "feedback": (1,)}, "cannot feed an output back"),
        ({"parts": (("a", 1), ("b", 1))}, "parts that make up its 3 steps"),
        ({"parts": (("a", 3), ("b", 0))}, "parts that make up its 3 steps"),
        ({"total": 3}, "fewer steps than its total"),
        ({"total": "T", "parts": (("a", 3),)}, "if it has no parts"),
    ],
)
def test_an_unrolling_that_contradicts_itself_raises(fields, message):
    with pytest.raises(InputError, match=message):
        Unrolling(cells.gru, **{"inputs": ("",) * 3, "outputs": ("",) * 3, **fields})


def test_arguments_that_do_not_fit_raise():
    trace = run_of(network(cells.gru), 3)
    for call, message in (
        (lambda: unrolled_graph(cells.gru, 0), "one step or more; found length=0"),
        (lambda: unrolled_graph(trace, 4), "1 to 3 steps; found length=4"),
        (lambda: unrolled_graph(trace, values=trace), "a run brings its own numbers"),
        (lambda: unrolled_graph(trace, example=3), "counted from 1 to 2; found example=3"),
        (lambda: unrolled_graph(Unrolling.of(cells.gru), 3), "leave length= out"),
        (lambda: unrolled_graph("gru"), "a Cell, a Network, a Trace, Gradients or an Unrolling"),
        (lambda: cell_graph("gru"), "the inside is drawn of a Cell.*; found str"),
    ):
        with pytest.raises(InputError, match=message):
            call()


# the inside of a cell


def dependencies(cell):
    """Named value → the named values that its equation reads, from the cell's program."""
    by_name, found = cell.program.by_name, {}
    named = {e.name for e in cell.equations.equations}

    def read(name):
        if name not in by_name:
            return {name}
        operands = by_name[name].operands
        alias = by_name[name].operation == "same" and not any(
            map(cell.program.is_parameter, operands)
        )
        if name in named and not (alias and operands):
            return {name}
        return {one for operand in operands for one in read(operand)}

    for name in named:
        operands = by_name[name].operands
        found[name] = {one for operand in operands for one in read(operand)}
        found[name] -= {one for one in found[name] if cell.program.is_parameter(one)}
    return found


def drawn_dependencies(graph):
    """The same, as the graph shows it."""
    into = {target: [] for target in range(len(graph.nodes))}
    for source, target in graph.edges:
        into[target].append(source)

    def read(node):
        name = graph.nodes[node].name
        return {name} if name else {one for source in into[node] for one in read(source)}

    return {
        node.name: {one for source in into[number] for one in read(source)}
        for number, node in enumerate(graph.nodes)
        if node.kind in ("gate", "operation") and node.name
    }


def assert_flows(cell):
    graph = inside_of(cell)
    expected = dependencies(cell)
    # What is only another name for a value has no node of its own; that value's stands for it.
    for name, sources in drawn_dependencies(graph).items():
        assert sources == expected[name], name
    leaving = [node.name for node in graph.nodes if node.kind in ("next", "output")]
    assert sorted(leaving) == sorted(cell.states)
    assert all(source < target for source, target in graph.edges)
    assert len(set(graph.edges)) == len(graph.edges)


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_the_inside_of_every_cell(cell):
    assert_flows(cell)
    root = parsed(cell_graph(cell))
    assert_tidy(root, "gate", "operation", "input", "state", "next", "output")
    graph = inside_of(cell)
    assert len(of_kind(root, "edge")) == len(graph.edges)
    places = {}
    for number, node in enumerate(graph.nodes):
        (group,) = [
            g for g in of_kind(root, node.kind) if g.get("id") == f"cell-{node.kind}-{number}"
        ]
        shape = group.find(f"{NAMESPACE}rect")
        places[number] = rectangle(shape) if shape is not None else None
    for source, target in graph.edges:
        if places[source] and places[target]:
            assert places[source][2] < places[target][0]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cell=random_cells())
@example(
    cell=Cell.parse(
        "def named_twice(x, h_prev, *, p, W):\n    v = h_prev\n    h = tanh(W.h @ x + p.h * v)\n"
        "    return h\n"
    )
)
def test_cells_that_no_one_thought_of(cell):
    assert_flows(cell)
    assert_tidy(
        parsed(cell_graph(cell)),
        *("gate", "operation", "input", "state", "next", "output"),
        texts=False,
    )
    assert_tidy(parsed(unrolled_graph(Unrolling(cell, ("",) * 2, ("",) * 2, 2, 2))), "cell")


def test_the_inside_of_an_lstm():
    root = parsed(cell_graph(cells.lstm))
    signs = {
        g.get("data-name"): g.findall(f"{NAMESPACE}text")[0].text for g in of_kind(root, "gate")
    }
    assert signs == {"i": "σ", "f": "σ", "g": "tanh", "o": "σ"}
    signs = Counter(g.findall(f"{NAMESPACE}text")[0].text for g in of_kind(root, "operation"))
    assert signs == {"×": 3, "+": 1, "tanh": 1}
    titles = [told(g) for g in of_kind(root, "gate") + of_kind(root, "operation")]
    assert {str(e) for e in cells.lstm.equations.equations} <= set(titles)
    (join,) = of_kind(root, "join")
    assert told(join) == "[h⟨t−1⟩, x⟨t⟩]: read together"
    assert {told(g) for g in of_kind(root, "state")} == {
        "h⟨t−1⟩: state h of the step before",
        "c⟨t−1⟩: state c of the step before",
    }


@pytest.mark.parametrize(
    ("equation", "labels"),
    [
        ("h = 1 - a", ["1 −"]),
        ("h = a - 1", ["− 1"]),
        ("h = a + 2 - 1", ["+ 2 − 1"]),
        ("h = -a", ["−"]),
        ("h = a + h_prev + 3", ["+ 3"]),
        ("h = a + a", ["+"]),
        ("h = a - a", ["−"]),
        ("h = a - (h_prev - 2)", ["+ 2", "−"]),
        ("h = 0.5 * a * h_prev", ["0.5 ×"]),
        ("h = a / 2", ["÷ 2"]),
        ("h = dt / a", ["dt ÷"]),
        ("h = a ** 2", ["( )²"]),
        ("h = a ** 0.5", ["^ 0.5"]),
        ("h = maximum(a, 0.1)", ["max 0.1"]),
        ("h = where(a > 0, a, h_prev)", ["> 0", "if"]),
        ("h = sqrt(abs(a))", ["|·|", "√"]),
        ("h = exp(-t) * a", ["−", "exp", "×"]),
        ("h = a + P.h", ["+ P.h"]),
    ],
)
def test_operations_and_their_signs(equation, labels):
    families = ", P" if "P." in equation else ""
    cell = Cell.parse(
        f"def one(x, h_prev, *, W{families}, dt=0.1):\n"
        f"    a = tanh(W.a @ x + dt * h_prev)\n    {equation}\n    return h\n"
    )
    graph = inside_of(cell)
    assert_flows(cell)
    found = [node.label for node in graph.nodes if node.kind == "operation"]
    assert found == ["dt ×", *labels]


def test_every_operation_has_a_sign():
    assert SIGNS.keys() == ELEMENTWISE - {"same"} | REDUCTIONS


# the drawing as a value and as a document


DRAWINGS = [unrolled_graph(cells.lstm, highlight=2), cell_graph(cells.gru)]


@pytest.mark.parametrize("drawing", DRAWINGS, ids=["unrolled", "inside"])
def test_a_drawing_is_a_document_that_stands_alone(drawing, tmp_path):
    root = parsed(drawing)
    assert root.tag == f"{NAMESPACE}svg"
    assert root.get("role") == "img"
    title, description = root[0], root[1]
    assert (title.tag, description.tag) == (f"{NAMESPACE}title", f"{NAMESPACE}desc")
    assert title.text
    assert description.text
    assert root.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(ids)) == len(ids)
    assert not list(root.iter(f"{NAMESPACE}script"))
    text = str(drawing)
    assert text.count("http") == 1  # the namespace: nothing is fetched
    assert "url(" not in text
    assert "@import" not in text
    assert "currentColor" in text
    assert "prefers-color-scheme: dark" in text
    path = drawing.save(tmp_path / "graph.svg")
    assert path.read_text(encoding="utf-8") == text == drawing._repr_html_()
    with pytest.raises(FrozenInstanceError):
        drawing.text = ""


def test_every_rule_of_style_is_for_drawings_only():
    style = next(parsed(DRAWINGS[0]).iter(f"{NAMESPACE}style")).text
    for selector in re.findall(r"([^{}@]+)\{", re.sub(r"@media[^{]+\{", "", style)):
        assert all(".unrolled-graph" in one for one in selector.split(","))


def test_words_are_escaped_and_blanks_and_controls_are_visible():
    words = ("<b>&amp;\"'", "\x00\x1f", "\n", " ", "\ud800", "a very long sentence that has no end")
    unrolling = Unrolling(cells.gru, words, ("",) * 6, parts=(("<i>", 2), ("&", 4)))
    root = parsed(unrolled_graph(unrolling, name='<"&>'))
    texts = ["".join(t.itertext()) for t in root.iter(f"{NAMESPACE}text")]
    assert {words[0], "\u2400\u241f", "↵", "␣", "\ufffd", "<i>", "&"} <= set(texts)
    assert any(text.startswith("a very long") and text.endswith("…") for text in texts)
    assert_tidy(root, "cell")


def test_long_names_stay_in_their_boxes():
    name = "a_recurrent_cell_whose_name_goes_on_and_on"
    gate = "a_gate_with_many_letters"
    cell = Cell.parse(
        f"def {name}(x, größe_prev, *, W):\n"
        f"    {gate} = sigmoid(W.a @ x)\n    größe = {gate} * größe_prev\n    return größe\n"
    )
    root = parsed(unrolled_graph(cell))
    assert_tidy(root, "cell")
    assert told(of_kind(root, "cell")[0]).startswith(f"{name}⟨1⟩: one step of cell {name}")
    for group in of_kind(root, "cell"):
        inner = rectangle(group.find(f"{NAMESPACE}rect"))
        for text in group.iter(f"{NAMESPACE}text"):
            left, _, right, _ = text_rectangle(text)
            assert inner[0] <= left < right <= inner[2]
    assert_tidy(parsed(cell_graph(cell)), "gate", "operation", "state", "input", "output")
