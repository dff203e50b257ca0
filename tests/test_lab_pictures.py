"""Pictures show the numbers of a trace and nothing else, and follow from known laws."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from own_cells import OWN_CELLS

from unrolled import Cell, InputError, cells
from unrolled.lab.pictures.canvas import Picture, is_dark, label_steps, luminance, visible
from unrolled.lab.pictures.firing import firing
from unrolled.lab.pictures.gates import gates
from unrolled.lab.pictures.halves import dependence, halves
from unrolled.lab.pictures.memory import memory, recurrent_blocks
from unrolled.lab.pictures.scales import Scale, range_of, scale_of
from unrolled.network import Network

CELLS = {**cells.catalogue(), **OWN_CELLS}
LINEAR = Cell.parse("""def linear(x, h_prev, *, W, U):
    h = W.h @ x + U.h @ h_prev
    return h""")

LATE = """def late(x, h_prev, c_prev, *, W):
    h = 0.5 * c_prev
    c = W.c @ x
    return h, c"""


def traced(cell=cells.lstm, T=7, B=2, H=4, layers=1, bidirectional=False, **options):
    network = Network.init(cell, 4, H, layers, bidirectional, rng=0)
    x = np.random.default_rng(1).standard_normal((T, B, 4))
    return network.trace(x, **options)


def image(ax):
    """The array that axes show, blanks as NaN."""
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def curves(ax):
    """Label → (steps back, medians)."""
    found = {line.get_label(): line for line in ax.lines if len(line.get_xdata()) != 2}
    return {label: (-line.get_xdata(), line.get_ydata()) for label, line in found.items()}


class TestGates:
    def test_shows_the_numbers_of_the_trace(self):
        trace = traced(layers=2, bidirectional=True, lengths=[7, 4])
        figure = gates(trace, ["h", "f", "c_prev"], layer=0, direction=1, example=1)
        for ax, name in zip(figure.axes, ["h", "f", "c_prev"], strict=False):
            np.testing.assert_array_equal(image(ax), trace[name, 0, 1][:4, 1].T)
        assert figure.get_suptitle() == "Gates and states of lstm, layer 0, reading from the end"

    def test_shows_gates_then_candidates_then_states_by_default(self):
        figure = gates(traced())
        titles = [ax.get_title("left") for ax in figure.axes[:6]]
        assert [title[1] for title in titles] == [*"ifoghc"]
        assert titles[5] == r"$c_{t} = f_{t} \odot c_{t-1} + i_{t} \odot g_{t}$"
        assert len(gates(traced(names=["c", "f"])).axes) == 4, "two panels, two bars"

    def test_neighbours_of_one_scale_share_a_bar(self):
        bars = gates(traced()).axes[6:]
        assert [bar.get_ylim() for bar in bars] == [(0, 1), (-1, 1)], "this c stays in −1..1"
        wide = gates(traced(), ["f", "h", "i"]).axes[3:]
        assert [bar.get_ylim() for bar in wide] == [(0, 1), (-1, 1), (0, 1)]
        assert [text.get_text() for text in bars[0].get_yticklabels()] == [
            "0 closed",
            "0.5",
            "1 open",
        ]

    def test_a_state_that_outgrows_its_scale_gets_its_own(self):
        params = {**cells.lstm.init(3, 4, rng=0)}
        params.update({"b.f": np.full(4, 9.0), "b.i": np.full(4, 9.0), "b.g": np.full(4, 9.0)})
        trace = Network(cells.lstm, ((params,),)).trace(np.ones((7, 1, 3)))
        figure = gates(trace, ["g", "c"])
        assert figure.axes[1].images[0].get_clim() == pytest.approx(
            (-trace["c"].max(), trace["c"].max())
        )
        assert figure.axes[0].images[0].get_clim() == (-1, 1)

    def test_writes_what_was_read(self):
        ax = gates(traced(), "f", labels="a b\nc\td").axes[0]
        assert [label.get_text() for label in ax.get_xticklabels()] == [*"a·b↵c→d"]
        words = gates(traced(), "f", labels=["one", "two", "$x$", "4", "5", "6", "7"]).axes[0]
        assert [label.get_rotation() for label in words.get_xticklabels()] == [90] * 7
        assert gates(traced(), "f").axes[0].get_xlabel() == "step"

    @pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
    def test_any_cell_can_be_drawn(self, cell):
        trace = traced(cell)
        figure = gates(trace)
        shown = {ax.images[0].get_array().tobytes() for ax in figure.axes if ax.images}
        for equation in cell.equations.equations:
            assert np.ascontiguousarray(trace[equation.name][:, 0].T).tobytes() in shown

    def test_an_equation_that_matplotlib_cannot_typeset_is_named(self):
        figure = gates(traced(OWN_CELLS["stages"]), ["h", "c"])  # h has a case distinction
        assert figure.axes[0].get_title("left") == "h"
        assert figure.axes[1].get_title("left").startswith("$c_{t} = ")
        figure.canvas.draw()

    def test_wrong_arguments_get_a_sentence(self):
        trace = traced(names=["f", "h"])
        with pytest.raises(InputError, match="cell 'lstm' has no value q; it has x, h_prev"):
            gates(trace, ["q"])
        with pytest.raises(InputError, match="c was not kept; this trace has f, h"):
            gates(trace, "c")
        with pytest.raises(InputError, match="1 layers, counted from 0; there is no layer 1"):
            gates(trace, layer=1)
        with pytest.raises(InputError, match="there is no direction 1"):
            gates(trace, direction=1)
        with pytest.raises(InputError, match="there is no example 2"):
            gates(trace, example=2)
        with pytest.raises(InputError, match="each of the 7 steps that this example has; found 3"):
            gates(trace, labels="abc")
        with pytest.raises(InputError, match="no value to draw"):
            gates(trace, [])
        with pytest.raises(InputError, match="example 1 of this trace has no steps"):
            gates(traced(lengths=[7, 0]), example=1)
        with pytest.raises(InputError, match=r"drawn from a Trace.* found ndarray"):
            gates(np.zeros((7, 2, 3)))
        with pytest.raises(InputError, match="2 matplotlib Axes, one for each of f, h; found 1"):
            gates(trace, axes=Figure().subplots())


class TestScales:
    @pytest.mark.parametrize(
        ("cell", "gates"),
        [
            (cells.lstm, "ifo"),
            (cells.coupled_lstm, "fio"),
            (cells.gru, "rz"),
            (cells.simple, ""),
            (OWN_CELLS["elementwise"], "f"),
        ],
        ids=lambda value: getattr(value, "name", None),
    )
    def test_gates_follow_from_the_equations(self, cell, gates):
        found = {e.name for e in cell.equations.equations if range_of(cell, e.name) == (0, 1)}
        assert found == set(gates)

    def test_ranges_hold_what_cells_compute(self):
        for cell in CELLS.values():
            trace = traced(cell, T=20)
            for equation in cell.equations.equations:
                low, high = range_of(cell, equation.name)
                values = trace[equation.name]
                assert low <= values.min(), (cell.name, equation.name)
                assert values.max() <= high, (cell.name, equation.name)

    def test_scales_are_gates_or_start_at_zero_or_lie_about_it(self):
        values = np.array([0.5, -2.0, np.inf])
        assert scale_of(cells.lstm, "f", values) == Scale(0, 1, gate=True)
        assert scale_of(cells.lstm, "c", values) == Scale(-2, 2)
        assert scale_of(cells.lstm, "c", values[:1]) == Scale(-1, 1)
        assert scale_of(cells.lstm, "c", values[:1], least=0) == Scale(-0.5, 0.5)
        assert scale_of(cells.simple_relu, "h", np.array([0.0, 3.0])) == Scale(0, 3)
        assert scale_of(cells.simple_relu, "h", np.zeros(2), least=0) == Scale(0, 1)

    def test_nothing_is_faint_on_light_and_on_dark_ground(self):
        for ground in ("white", "black"):
            ax = Figure().subplots()
            ax.set_facecolor(ground)
            assert is_dark(ax) == (ground == "black")
            colours = Scale(-1, 1).colours(ax)
            middle, ends = luminance(colours(0.5)), [luminance(colours(end)) for end in (0.0, 1.0)]
            far = [abs(luminance(ground) - end) for end in ends]
            assert abs(luminance(ground) - middle) < 0.1 < 0.3 < min(far)


class TestFiring:
    TEXT = "one two three\nfour\tfive"

    def drawn(self, *arguments, text=TEXT, **options):
        trace = traced(T=len(text), H=5)
        return trace, firing(trace, text, *arguments, **options)

    def test_shows_each_character_on_its_number(self):
        trace, figure = self.drawn("c", [3, 1], width=9, example=1)
        lines = ["one two ", "three\n", "four\tfive"]
        for ax, unit in zip(figure.axes, [3, 1], strict=False):
            found = image(ax)
            assert [np.sum(np.isfinite(row)) for row in found] == [len(line) for line in lines]
            values = found[np.isfinite(found)]  # line by line: the order of reading
            np.testing.assert_array_equal(values, trace["c"][:, 1, unit])
            assert ax.get_title("left") == f"c, unit {unit}"

    def test_every_visible_character_stands_in_its_cell(self):
        _, figure = self.drawn(units=0, width=14)
        ax = figure.axes[0]
        boxes = [path.get_extents() for path in ax.collections[0].get_paths()]
        places = [(round(box.y0 / 2 + box.y1 / 2), (box.x0 + box.x1) / 2) for box in boxes]
        wanted = [(0, column) for column in range(14)] + [(1, column) for column in range(9)]
        assert [line for line, _ in places] == [line for line, _ in wanted]
        for (_, middle), (_, column) in zip(places, wanted, strict=True):
            assert abs(middle - column) < 0.2
        for box, (line, _) in zip(boxes, wanted, strict=True):
            assert box.width < 1
            assert line - 0.5 < box.y0 < box.y1 < line + 0.5

    def test_ink_can_be_read_on_its_ground(self):
        trace, figure = self.drawn("c", 0)
        ax = figure.axes[0]
        colours = ax.images[0].cmap(ax.images[0].norm(trace["c"][:, 0, 0]))
        inks = ax.collections[0].get_facecolors()
        for ground, ink in zip(colours, inks, strict=True):
            pair = sorted([luminance(ground), luminance(ink)])
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, "WCAG 2, AA"

    def test_words_are_coloured_whole_with_gaps_between(self):
        words = ["never", "look", "back", ""]
        trace = traced(T=4)
        found = image(firing(trace, words, "o", 2).axes[0])[0]
        values = trace["o"][:, 0, 2]
        gap = [np.nan]
        expected = [*[values[0]] * 5, *gap, *[values[1]] * 4, *gap, *[values[2]] * 4, *gap]
        np.testing.assert_array_equal(found, expected)

    def test_the_units_that_vary_most_come_by_default(self):
        trace, figure = self.drawn()
        spread = trace["h"][:, 0].std(axis=0)
        shown = [int(ax.get_title("left").split()[-1]) for ax in figure.axes[:3]]
        assert sorted(spread[shown]) == sorted(spread)[-3:]

    def test_white_space_can_be_seen(self):
        assert visible("a b\n\t\x07$é") == "a·b↵→�$é"

    def test_wrong_arguments_get_a_sentence(self):
        trace = traced()
        with pytest.raises(InputError, match="the text is one text for each of the 7 steps"):
            firing(trace, "too long to be it")
        with pytest.raises(InputError, match="units are whole numbers from 0 to 3"):
            firing(trace, "1234567", units=[1, 4])
        with pytest.raises(InputError, match="units are whole numbers"):
            firing(trace, "1234567", units=[])
        with pytest.raises(InputError, match="at least one character; found width=0"):
            firing(trace, "1234567", width=0)
        with pytest.raises(InputError, match="has no value q"):
            firing(trace, "1234567", "q")
        with pytest.raises(InputError, match="no characters"):
            firing(trace, [""] * 7)


class TestMemory:
    @pytest.mark.parametrize("radius", [0.5, 1.0, 1.25])
    def test_a_linear_recurrence_decays_as_its_radius(self, radius):
        params = LINEAR.init(3, 4, rng=0)
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
        network = Network(LINEAR, (({**params, "U.h": radius * turn},),))
        back, norms = curves(memory(network, name="h", length=30).axes[0])["linear"]
        np.testing.assert_array_equal(back, np.arange(30))
        np.testing.assert_allclose(norms, radius ** np.arange(30.0), rtol=1e-10)

    def test_drawn_cells_get_the_radius_that_is_asked_for(self):
        figure = memory(LINEAR, radius=[0.5, None, 2], input_size=1, hidden_size=1, length=12)
        for ax, radius in zip(figure.axes, [0.5, None, 2], strict=True):
            norms = curves(ax)["linear"][1]
            if radius:
                np.testing.assert_allclose(norms, radius ** np.arange(12.0), rtol=1e-10)
        titles = [ax.get_title("left") for ax in figure.axes]
        assert titles == ["spectral radius 0.5", "as drawn", "spectral radius 2"]

    def test_shows_the_gradients_of_a_trace(self):
        trace = traced(B=3, layers=2, lengths=[7, 0, 4])
        dy = np.zeros_like(trace.y)
        dy[6, 0] = dy[3, 2] = 1 / 2
        gradients = trace.backward(dy)
        for name, of in ((None, gradients.x), ("c", gradients["c", 0])):
            norms = np.linalg.norm(of, axis=2)
            rows = np.stack([norms[6:2:-1, 0], norms[3::-1, 2]])
            ax = memory(trace, name=name, layer=0).axes[0]
            medians = curves(ax)["lstm"][1]
            start = np.median(rows[:, 0])
            np.testing.assert_allclose(medians[:4], np.median(rows, axis=0) / start)
            np.testing.assert_allclose(medians[4:], norms[2::-1, 0] / start)

    def test_a_forget_bias_keeps_what_a_plain_lstm_forgets(self):
        figure = memory(
            [cells.lstm, (cells.lstm, {"b.f": 1}), (cells.lstm, {"b.f": 3})],
            radius=1, length=20, draws=3, hidden_size=8,
        )  # fmt: skip
        ends = [norms[-1] for _, norms in curves(figure.axes[0]).values()]
        assert ends == sorted(ends)
        assert [*curves(figure.axes[0])] == ["lstm", "lstm, b.f = 1", "lstm, b.f = 3"]

    def test_explodes_and_vanishes(self):
        figure = memory(cells.simple, radius=[0.5, 4], length=30, draws=3, hidden_size=16)
        small, large = (curves(ax)["simple"][1] for ax in figure.axes)
        assert small[-1] < 1e-6 < 10 < large[-1]
        assert small[0] == large[0] == 1
        texts = {text.get_text() for ax in figure.axes for text in ax.texts}
        assert texts == {"explodes ↑", "vanishes ↓"}

    def test_the_same_seed_draws_the_same(self):
        options = {"radius": 1, "length": 5, "draws": 2, "hidden_size": 3}
        one, same, other = (memory(cells.gru, rng=rng, **options).axes[0] for rng in (1, 1, 2))
        np.testing.assert_array_equal(curves(one)["gru"], curves(same)["gru"])
        assert np.any(curves(one)["gru"][1] != curves(other)["gru"][1])

    def test_bands_are_the_middle_half(self):
        trace = traced(B=9)
        dy = np.zeros_like(trace.y)
        dy[-1] = 1 / 2
        norms = np.linalg.norm(trace.backward(dy).x, axis=2)[::-1]
        norms /= np.median(norms[0])
        band = memory(trace).axes[0].collections[0].get_paths()[0].vertices
        for back in (0, 3, 6):
            found = band[band[:, 0] == -back][:, 1]
            expected = np.quantile(norms[back], [0.25, 0.75])
            np.testing.assert_allclose([found.min(), found.max()], expected)

    def test_recurrent_weights_are_those_that_meet_the_step_before(self):
        assert recurrent_blocks(cells.lstm) == ["U.i", "U.f", "U.g", "U.o"]
        assert recurrent_blocks(cells.gru_original) == ["U.r", "U.z", "U.n"]
        assert "P.o" in recurrent_blocks(cells.peephole_lstm)
        assert recurrent_blocks(OWN_CELLS["deep_input"]) == ["U.h"]
        assert recurrent_blocks(OWN_CELLS["elementwise"]) == ["P.h"]

    @pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
    def test_any_cell_can_be_drawn(self, cell):
        figure = memory(cell, radius=0.9, length=4, draws=2, input_size=3, hidden_size=3)
        assert np.all(np.isfinite(curves(figure.axes[0])[cell.name][1]))

    def test_an_output_that_comes_late_is_compared_with_the_step_that_moves_it(self):
        norms = curves(memory(traced(Cell.parse(LATE))).axes[0])["late"][1]
        np.testing.assert_allclose(norms, [0, 1, 0, 0, 0, 0, 0])

    def test_wrong_arguments_get_a_sentence(self):
        with pytest.raises(InputError, match=r"memory compares cells.*found int"):
            memory([cells.lstm, 3])
        with pytest.raises(InputError, match=r"memory compares cells.*found str"):
            memory("lstm")
        with pytest.raises(InputError, match="found none"):
            memory([])
        with pytest.raises(InputError, match="two subjects would have one label: lstm, lstm"):
            memory([cells.lstm, cells.lstm])
        with pytest.raises(InputError, match="number above 0, or None; found -1"):
            memory(cells.lstm, radius=-1)
        with pytest.raises(InputError, match=r"cell 'gru' has no parameters b\.f"):
            memory((cells.gru, {"b.f": 1}))
        with pytest.raises(InputError, match="at least 1; found 0 and 10"):
            memory(cells.gru, length=0)
        with pytest.raises(InputError, match="cell 'gru' has no value c"):
            memory(cells.gru, name="c")
        with pytest.raises(InputError, match="c was not kept"):
            memory(traced(names=["h"]), name="c")
        with pytest.raises(InputError, match="no steps to look back on"):
            memory(traced(lengths=[0, 0]))
        with pytest.raises(InputError, match="does not depend on c of any step"):
            memory(traced(Cell.parse(LATE.replace("0.5 * c_prev", "tanh(W.c @ x)"))), name="c")
        with pytest.raises(InputError, match="3 matplotlib Axes, one for each radius; found 1"):
            memory(axes=Figure().subplots())


class TestHalves:
    @pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
    def test_a_half_does_not_depend_on_what_it_has_not_read(self, cell):
        trace = traced(cell, bidirectional=True, lengths=[5, 7])
        for example, steps in ((0, 5), (1, 7)):
            for half, unread in ((0, np.triu), (1, np.tril)):
                norms = dependence(trace, -1, half, example)
                assert norms.shape == (steps, steps)
                assert np.all(unread(norms, 1 - 2 * half) == 0)

    @pytest.mark.parametrize("half", [0, 1])
    def test_the_norms_are_those_of_differences(self, half):
        trace = traced(cells.gru, layers=2, bidirectional=True, lengths=[6, 7])
        norms = dependence(trace, 1, half, 0)
        alone = Network(cells.gru, ((trace.network.params[1][half],),))
        read = trace["x", 1, half][:6, 0]
        turned = slice(None, None, -1 if half else 1)
        for t, s in ((0, 0), (4, 2), (2, 4), (5, 5)):
            slopes = []
            for unit in range(read.shape[1]):
                sums = []
                for push in (1e-6, -1e-6):
                    pushed = read.copy()
                    pushed[s, unit] += push
                    sums.append(alone.run(pushed[turned])[0][turned][t].sum() / 2)
                slopes.append((sums[0] - sums[1]) / 2e-6)
            assert norms[t, s] == pytest.approx(np.linalg.norm(slopes), rel=1e-6, abs=1e-9)

    @pytest.mark.parametrize("half", [0, 1])
    def test_the_norms_are_those_of_the_trace_itself(self, half):
        rng = np.random.default_rng(1)
        network = Network.init(cells.gru, 3, 4, bidirectional=True, rng=0)
        learned = Network(cells.gru, network.params, rng.standard_normal((2, 4)))
        x, state = rng.standard_normal((7, 2, 3)), rng.standard_normal((2, 2, 4))
        resets = np.zeros((7, 2), bool)
        resets[[0, 3], 1] = True
        trace = learned.trace(x, state, [7, 6], resets)
        for example, steps in ((0, 7), (1, 6)):
            norms = dependence(trace, 0, half, example)
            for t in range(steps):
                dy = np.zeros_like(trace.y)
                dy[t, example, 4 * half : 4 * half + 4] = 1 / 2
                gradient = trace.backward(dy).x[:steps, example]
                np.testing.assert_allclose(norms[t], np.linalg.norm(gradient, axis=1), rtol=1e-12)

    def test_shows_outputs_and_norms(self):
        trace = traced(bidirectional=True, lengths=[6, 7])
        figure = halves(trace, step=2, labels="abc ef")
        for half in (0, 1):
            upper, lower = figure.axes[half], figure.axes[2 + half]
            np.testing.assert_array_equal(image(upper), trace["h", 0, half][:6, 0].T)
            norms = dependence(trace, 0, half, 0)
            np.testing.assert_array_equal(np.nan_to_num(image(lower)), norms)
            assert "not read yet" in [text.get_text() for text in lower.texts]
            assert [label.get_text() for label in lower.get_yticklabels()] == [*"abc·ef"]
        titles = [ax.get_title("left") for ax in figure.axes[2:4]]
        assert titles == ["at step 2 it has read “abc”", "at step 2 it has read “c·ef”"]

    def test_frames_the_step_that_it_points_at(self):
        figure = halves(traced(bidirectional=True))
        frames = [[p for p in ax.patches if isinstance(p, Rectangle)] for ax in figure.axes[:4]]
        boxes = [[*frame.get_xy(), frame.get_width(), frame.get_height()] for (frame,) in frames]
        assert boxes == [[2.5, -0.5, 1, 4], [2.5, -0.5, 1, 4], [-0.5, 2.5, 4, 1], [2.5, 2.5, 4, 1]]
        assert figure.axes[3].get_title("left") == "at step 3 it has read steps 3 to 6"

    def test_wrong_arguments_get_a_sentence(self):
        with pytest.raises(InputError, match="only a bidirectional network has two halves"):
            halves(traced())
        trace = traced(bidirectional=True, lengths=[6, 7])
        with pytest.raises(InputError, match="6 steps, counted from 0; found step 6"):
            halves(trace, 6)
        with pytest.raises(InputError, match="h_prev was not kept"):
            halves(traced(bidirectional=True, names=["x", "h"]))
        with pytest.raises(InputError, match="4 matplotlib Axes, two above, two below"):
            halves(trace, axes=Figure().subplots(2))


PICTURES = {
    "gates": (lambda trace, axes: gates(trace, ["f", "h"], axes=axes), (2, 1)),
    "firing": (lambda trace, axes: firing(trace, "7 steps", units=[0, 1], axes=axes), (1, 2)),
    "memory": (lambda trace, axes: memory(trace, axes=axes), (1, 1)),
    "halves": (lambda trace, axes: halves(trace, axes=axes), (2, 2)),
}


@pytest.mark.parametrize(("draw", "grid"), PICTURES.values(), ids=PICTURES)
def test_a_picture_is_a_figure_or_drawn_into_given_axes(draw, grid):
    trace = traced(bidirectional=True)
    new = draw(trace, None)
    assert isinstance(new, Picture)
    assert new._repr_png_().startswith(b"\x89PNG")
    assert new.get_suptitle()
    mine = Figure(layout="constrained")
    axes = mine.subfigures(1, 2)[1].subplots(*grid)
    assert draw(trace, axes) is mine
    assert not mine.get_suptitle()
    for ax in np.ravel(np.array(axes, dtype=object)):
        assert isinstance(ax, Axes)
        assert ax.has_data()
    mine.canvas.draw()


def test_labels_shrink_and_then_thin_out():
    ax = Figure().subplots()
    for steps, size, shown in ((10, 10, 10), (100, 5.76, 100), (400, 5, 100)):
        label_steps(ax.xaxis, ["x"] * steps, steps, 6.0)
        assert len(ax.get_xticks()) == shown
        assert ax.xaxis.get_ticklabels()[0].get_size() == pytest.approx(size)


def test_pyplot_is_left_alone_and_torch_is_not_needed():
    code = (
        "import sys, numpy as np\n"
        "from unrolled import cells\n"
        "from unrolled.network import Network\n"
        "from unrolled.lab.pictures.gates import gates\n"
        "from unrolled.lab.pictures.firing import firing\n"
        "from unrolled.lab.pictures.memory import memory\n"
        "from unrolled.lab.pictures.halves import halves\n"
        "network = Network.init(cells.gru, 2, 3, bidirectional=True, rng=0)\n"
        "trace = network.trace(np.ones((3, 1, 2)))\n"
        "for one in (gates(trace), firing(trace, 'abc'), memory(trace), halves(trace)):\n"
        "    assert one.axes\n"
        "one._repr_png_()\n"
        "print(*sys.modules)\n"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    modules = loaded.decode().split()
    assert "matplotlib.figure" in modules
    assert {"matplotlib.pyplot", "torch", "numba"}.isdisjoint(modules)
