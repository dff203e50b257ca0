"""Pictures of gradients, `memory` and `halves`, follow from known laws."""

import numpy as np
import pytest
from drawn import CELLS, assert_whole, image, ticks, traced
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import unrolled
from unrolled import Cell, InputError, cells
from unrolled.lab.pictures.halves import dependence, halves
from unrolled.lab.pictures.memory import memory
from unrolled.lab.pictures.readings import Reading
from unrolled.network import Network

LINEAR = Cell.parse("""def linear(x, h_prev, *, W, U):
    h = W.h @ x + U.h @ h_prev
    return h""")

LATE = """def late(x, h_prev, c_prev, *, W):
    h = 0.5 * c_prev
    c = W.c @ x
    return h, c"""


def curves(ax):
    """Label → (steps back, medians)."""
    found = {line.get_label(): line for line in ax.lines if len(line.get_xdata()) != 2}
    return {label: (-line.get_xdata(), line.get_ydata()) for label, line in found.items()}


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
        for name, of, layer in (
            (None, gradients.x, None),
            ("c", gradients["c", 0], 1),
            ("c", gradients["c", 1], 2),
            ("c", gradients["c", 1], None),
        ):
            norms = np.linalg.norm(of, axis=2)
            rows = np.stack([norms[6:2:-1, 0], norms[3::-1, 2]])
            ax = memory(trace, name=name, layer=layer).axes[0]
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

    def test_few_steps_are_counted_in_whole_numbers(self):
        for steps, written in ((1, ["0"]), (3, ["2", "1", "0"])):
            ax = memory(traced(T=steps)).axes[0]
            assert [*ticks(ax.xaxis).values()] == written
            assert (ax.lines[0].get_marker() == "o") == (steps == 1), "a line needs two points"

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
                norms = dependence(Reading(trace, 0, half, example))
                assert norms.shape == (steps, steps)
                assert np.all(unread(norms, 1 - 2 * half) == 0)

    def test_with_masks_it_is_that_run(self):
        network = Network.init(unrolled.zoneout(cells.gru, 0.5), 4, 4, rng=0)
        x = np.random.default_rng(1).standard_normal((7, 2, 4))
        kept = np.zeros((7, 2, 4))
        kept[3] = 1  # what is read then goes nowhere
        norms = dependence(Reading(network.trace(x, masks=[{"keep_h": kept}]), 0, 0, 1))
        assert np.all(norms[:, 3] == 0)
        assert np.all(norms[5:, 2] > 0)

    @pytest.mark.parametrize("half", [0, 1])
    def test_the_norms_are_those_of_differences(self, half):
        trace = traced(cells.gru, layers=2, bidirectional=True, lengths=[6, 7])
        norms = dependence(Reading(trace, 1, half, 0))
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
            norms = dependence(Reading(trace, 0, half, example))
            for t in range(steps):
                dy = np.zeros_like(trace.y)
                dy[t, example, 4 * half : 4 * half + 4] = 1 / 2
                gradient = trace.backward(dy).x[:steps, example]
                np.testing.assert_allclose(norms[t], np.linalg.norm(gradient, axis=1), rtol=1e-12)

    def test_shows_outputs_and_norms(self):
        trace = traced(bidirectional=True, lengths=[6, 7])
        figure = halves(trace, step=3, labels="abc ef")
        for half in (0, 1):
            upper, lower = figure.axes[half], figure.axes[2 + half]
            np.testing.assert_array_equal(image(upper), trace["h", 0, half][:6, 0].T)
            norms = dependence(Reading(trace, 0, half, 0))
            np.testing.assert_array_equal(np.nan_to_num(image(lower)), norms)
            assert "not read yet" in [text.get_text() for text in lower.texts]
            for axis in (upper.xaxis, lower.xaxis):
                assert ticks(axis) == dict(enumerate("abc·ef", 1))
            assert ticks(lower.yaxis) == ({} if half else dict(enumerate("abc·ef", 1)))
        titles = [ax.get_title("left") for ax in figure.axes[2:4]]
        assert titles == ["at step 3 it has read “abc”", "at step 3 it has read “c·ef”"]

    def test_frames_the_step_that_it_points_at(self):
        figure = halves(traced(bidirectional=True))
        frames = [[p for p in ax.patches if isinstance(p, Rectangle)] for ax in figure.axes[:4]]
        boxes = [[*frame.get_xy(), frame.get_width(), frame.get_height()] for (frame,) in frames]
        assert boxes == [[3.5, 0.5, 1, 4], [3.5, 0.5, 1, 4], [0.5, 3.5, 4, 1], [3.5, 3.5, 4, 1]]
        assert figure.axes[3].get_title("left") == "at step 4 it has read steps 4 to 7"

    def test_steps_and_units_are_counted_from_one(self):
        figure = halves(traced(H=8, layers=2, bidirectional=True), step=7)
        figure.draw_without_rendering()
        assert figure.get_suptitle() == "The two halves of lstm, layer 2"
        titles = [ax.get_title("left") for ax in figure.axes[2:4]]
        assert titles == ["at step 7 it has read steps 1 to 7", "at step 7 it has read step 7"]
        steps = {float(n): str(n) for n in range(1, 8)}
        for ax in figure.axes[:4]:
            assert ticks(ax.xaxis) == steps
        assert ticks(figure.axes[0].yaxis) == {n: f"{n:g}" for n in (1.0, 3.0, 5.0, 7.0)}
        assert ticks(figure.axes[2].yaxis) == steps

    def test_words_that_do_not_fit_above_are_left_out_whole(self):
        words = ["once", "upon", "a", "time", "there", "were", "networks"]
        figure = halves(traced(bidirectional=True), step=4, labels=words)
        titles = [ax.get_title("left").split("read ")[1] for ax in figure.axes[2:4]]
        assert titles == ["“… upon a time”", "“time there were …”"]
        figure.draw_without_rendering()
        assert_whole(figure)

    def test_wrong_arguments_get_a_sentence(self):
        with pytest.raises(InputError, match="only a bidirectional network has two halves"):
            halves(traced())
        trace = traced(bidirectional=True, lengths=[6, 7])
        with pytest.raises(
            InputError, match="1 of this run has 6 steps, counted from one; found step=7"
        ):
            halves(trace, 7)
        with pytest.raises(InputError, match=r"2 of this run has 7 steps.*; found step=0"):
            halves(trace, 0, example=2)
        with pytest.raises(InputError, match="h_prev was not kept"):
            halves(traced(bidirectional=True, names=["x", "h"]))
        with pytest.raises(InputError, match="4 matplotlib Axes, two above, two below"):
            halves(trace, axes=Figure().subplots(2))
