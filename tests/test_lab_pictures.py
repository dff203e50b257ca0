"""Pictures show the numbers of a trace and nothing else, and follow from known laws."""

import subprocess
import sys

import numpy as np
import pytest
from drawn import CELLS, assert_whole, image, ticks, traced
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from own_cells import OWN_CELLS

from unrolled import InputError, cells
from unrolled.lab.pictures.canvas import FromOne, Picture, is_dark, label_steps, luminance, visible
from unrolled.lab.pictures.firing import firing
from unrolled.lab.pictures.gates import gates
from unrolled.lab.pictures.halves import halves
from unrolled.lab.pictures.memory import memory
from unrolled.lab.pictures.scales import Scale, range_of, scale_of
from unrolled.network import Network

QUICK = ("gru", "elementwise", "projected_lstm")  # the others take long together


class TestGates:
    def test_shows_the_numbers_of_the_trace(self):
        trace = traced(layers=2, bidirectional=True, lengths=[7, 4])
        figure = gates(trace, ["h", "f", "c_prev"], layer=1, direction=1, example=2)
        for ax, name in zip(figure.axes, ["h", "f", "c_prev"], strict=False):
            np.testing.assert_array_equal(image(ax), trace[name, 0, 1][:4, 1].T)
        assert figure.get_suptitle() == "Gates and states of lstm, layer 1, reading from the end"

    def test_the_last_layer_and_the_first_example_come_by_default(self):
        trace = traced(layers=2)
        np.testing.assert_array_equal(image(gates(trace, "h").axes[0]), trace["h", 1][:, 0].T)
        np.testing.assert_array_equal(
            image(gates(trace, "h", layer=2, example=1).axes[0]), trace["h", 1][:, 0].T
        )
        assert gates(trace, "h").get_suptitle() == "Gates and states of lstm, layer 2"

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
        assert ticks(ax.xaxis) == dict(enumerate("a·b↵c→d", 1))
        assert gates(traced(), "f").axes[0].get_xlabel() == "step"

    def test_words_stand_upright_where_they_cannot_lie(self):
        for word, degrees in (("$x$", 0), ("a word too long to lie", 90)):
            ax = gates(traced(), "f", labels=[*"123456", word]).axes[0]
            labels = ax.get_xticklabels()
            assert [label.get_rotation() for label in labels] == [degrees] * 7
            assert not any(label.get_parse_math() for label in labels), "a word is no formula"

    @pytest.mark.parametrize(
        "cell",
        [
            pytest.param(cell, id=name, marks=() if name in QUICK else pytest.mark.slow)
            for name, cell in CELLS.items()
        ],
    )
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
        figure.draw_without_rendering()

    def test_wrong_arguments_get_a_sentence(self):
        trace = traced(names=["f", "h"])
        with pytest.raises(InputError, match="cell 'lstm' has no value q; it has x, h_prev"):
            gates(trace, ["q"])
        with pytest.raises(InputError, match="c was not kept; this trace has f, h"):
            gates(trace, "c")
        with pytest.raises(InputError, match="each of the 7 steps that this example has; found 3"):
            gates(trace, labels="abc")
        with pytest.raises(InputError, match="no value to draw"):
            gates(trace, [])
        with pytest.raises(InputError, match="example 2 of this run has no steps"):
            gates(traced(lengths=[7, 0]), example=2)
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
        trace, figure = self.drawn("c", [4, 2], width=9, example=2)
        lines = ["one two ", "three\n", "four\tfive"]
        for ax, unit in zip(figure.axes, [4, 2], strict=False):
            found = image(ax)
            assert [np.sum(np.isfinite(row)) for row in found] == [len(line) for line in lines]
            values = found[np.isfinite(found)]  # line by line: the order of reading
            np.testing.assert_array_equal(values, trace["c"][:, 1, unit - 1])
            assert ax.get_title("left") == f"c, unit {unit}"

    def test_every_visible_character_stands_in_its_cell(self):
        _, figure = self.drawn(units=1, width=14)
        ax = figure.axes[0]
        boxes = [path.get_extents() for path in ax.collections[0].get_paths()]
        places = [(round(box.y0 / 2 + box.y1 / 2), (box.x0 + box.x1) / 2) for box in boxes]
        wanted = [(line, 1 + column) for line in (1, 2) for column in range((14, 9)[line - 1])]
        assert [line for line, _ in places] == [line for line, _ in wanted]
        for (_, middle), (_, column) in zip(places, wanted, strict=True):
            assert abs(middle - column) < 0.2
        for box, (line, _) in zip(boxes, wanted, strict=True):
            assert box.width < 1
            assert line - 0.5 < box.y0 < box.y1 < line + 0.5

    def test_ink_can_be_read_on_its_ground(self):
        trace, figure = self.drawn("c", 1)
        ax = figure.axes[0]
        colours = ax.images[0].cmap(ax.images[0].norm(trace["c"][:, 0, 0]))
        inks = ax.collections[0].get_facecolors()
        for ground, ink in zip(colours, inks, strict=True):
            pair = sorted([luminance(ground), luminance(ink)])
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, "WCAG 2, AA"

    def test_words_are_coloured_whole_with_gaps_between(self):
        words = ["never", "look", "back", ""]
        trace = traced(T=4)
        found = image(firing(trace, words, "o", 3).axes[0])[0]
        values = trace["o"][:, 0, 2]
        gap = [np.nan]
        expected = [*[values[0]] * 5, *gap, *[values[1]] * 4, *gap, *[values[2]] * 4, *gap]
        np.testing.assert_array_equal(found, expected)

    def test_the_units_that_vary_most_come_by_default(self):
        trace, figure = self.drawn()
        spread = trace["h"][:, 0].std(axis=0)
        shown = [int(ax.get_title("left").split()[-1]) for ax in figure.axes[:3]]
        assert shown == sorted(shown)
        assert sorted(spread[np.array(shown) - 1]) == sorted(spread)[-3:]

    def test_the_title_of_a_short_text_has_room(self):
        figure = firing(traced(T=1, H=2), "a", "f", 1)
        figure.draw_without_rendering()
        assert_whole(figure)

    def test_white_space_can_be_seen(self):
        assert visible("a b\n\t\x07$é") == "a·b↵→�$é"

    def test_wrong_arguments_get_a_sentence(self):
        trace = traced()
        with pytest.raises(InputError, match="the text is one text for each of the 7 steps"):
            firing(trace, "too long to be it")
        with pytest.raises(InputError, match=r"from 1 to 4, one or more; found \[0, 4\]"):
            firing(trace, "1234567", units=[0, 4])
        with pytest.raises(InputError, match="from 1 to 4, one or more; found 5"):
            firing(trace, "1234567", units=5)
        with pytest.raises(InputError, match="units are whole numbers"):
            firing(trace, "1234567", units=[])
        with pytest.raises(InputError, match="at least one character; found width=0"):
            firing(trace, "1234567", width=0)
        with pytest.raises(InputError, match="has no value q"):
            firing(trace, "1234567", "q")
        with pytest.raises(InputError, match="no characters"):
            firing(trace, [""] * 7)


DRAW = {
    "gates": lambda trace, **place: gates(trace, "h", **place),
    "firing": lambda trace, **place: firing(trace, "7 steps", **place),
    "halves": lambda trace, **place: halves(trace, **place),
    "memory": lambda trace, **place: memory(trace, **place),
}


class TestCounting:
    """Steps, units, layers and examples are counted from one, in arguments and on axes."""

    @pytest.mark.parametrize(
        ("steps", "units"),
        [
            ("1", "1"),
            ("1 3 5 7 9 11", "1 2 3 4"),
            ("1 5 10 15 20 25 30 35 40", "1 10 20 30"),
            ("1 50 100 150 200 250 300", "1 20 40 60 80 100"),
        ],
    )
    def test_what_is_written_at_steps_and_units(self, steps, units):
        wanted = [{float(n): n for n in written.split()} for written in (steps, units)]
        T, H = (int(max(numbers)) for numbers in wanted)
        figure = gates(traced(cells.simple, T=T, H=H), "h")
        figure.draw_without_rendering()
        ax = figure.axes[0]
        assert [ticks(ax.xaxis), ticks(ax.yaxis)] == wanted

    def test_the_tick_of_a_number_stands_at_its_row_and_column(self):
        ax = gates(traced(T=5, H=3), "h").axes[0]
        corner, size = ax.get_window_extent().p0, ax.get_window_extent().size
        for step, unit in ((1, 1), (5, 1), (2, 3)):
            found = (ax.transData.transform((step, unit)) - corner) / size
            np.testing.assert_allclose(found, [(step - 0.5) / 5, 1 - (unit - 0.5) / 3])

    @pytest.mark.parametrize("count", [2, 3, 9, 10, 11, 99, 1000])
    def test_ticks_begin_at_one_and_are_as_far_apart_as_one_expects(self, count):
        found = [n for n in FromOne(6).tick_values(0.5, count + 0.5) if n < count + 0.5]
        assert found[0] == 1
        assert len(found) <= 7
        gaps = np.diff(found)[1:]  # the first may be one less, from 1 to 5
        assert len({*gaps}) <= 1
        assert all(n % gaps[0] in (0, 1) for n in found[1:] if len(gaps))

    @pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
    @pytest.mark.parametrize("layer", [0, 3, -1, 1.5])
    def test_a_layer_that_is_not_there(self, draw, layer):
        trace = traced(T=7, H=2, layers=2, bidirectional=True)
        sentence = f"this run has 2 layers, counted from one; found layer={layer}"
        with pytest.raises(InputError, match=sentence):
            draw(trace, layer=layer)

    @pytest.mark.parametrize("draw", [*DRAW.values()][:3], ids=[*DRAW][:3])
    @pytest.mark.parametrize("example", [0, 2])
    def test_an_example_that_is_not_there(self, draw, example):
        trace = traced(T=7, B=1, H=2, bidirectional=True)
        sentence = f"this run has 1 example, counted from one; found example={example}"
        with pytest.raises(InputError, match=sentence):
            draw(trace, example=example)

    @pytest.mark.parametrize("name", ["gates", "firing", "memory"])
    def test_a_direction_that_is_not_there(self, name):
        one, both = traced(H=2), traced(H=2, bidirectional=True)
        with pytest.raises(InputError, match="one direction, which is 0; found direction=1"):
            DRAW[name](one, direction=1)
        for direction in (2, -1):
            sentence = f"0, and 1 which reads from the end; found direction={direction}"
            with pytest.raises(InputError, match=sentence):
                DRAW[name](both, direction=direction)


PICTURES = {
    "gates": (lambda trace, axes: gates(trace, ["f", "h"], axes=axes), (2, 1)),
    "firing": (lambda trace, axes: firing(trace, "7 steps", units=[1, 2], axes=axes), (1, 2)),
    "memory": (lambda trace, axes: memory(trace, axes=axes), (1, 1)),
    "halves": (lambda trace, axes: halves(trace, axes=axes), (2, 2)),
}


@pytest.mark.parametrize(("draw", "grid"), PICTURES.values(), ids=PICTURES)
def test_a_picture_is_a_figure_or_drawn_into_given_axes(draw, grid):
    trace = traced(bidirectional=True)
    new = draw(trace, None)
    assert isinstance(new, Picture)
    assert new.get_suptitle()
    mine = Figure()
    axes = mine.subfigures(1, 2)[1].subplots(*grid)
    assert draw(trace, axes) is mine
    assert not mine.get_suptitle()
    for ax in np.ravel(np.array(axes, dtype=object)):
        assert isinstance(ax, Axes)
        assert ax.has_data()
    mine.draw_without_rendering()


def test_a_figure_shows_itself_in_notebooks():
    assert gates(traced(), "f")._repr_png_().startswith(b"\x89PNG")


def test_labels_shrink_and_then_thin_out():
    ax = Figure().subplots()
    for steps, size, shown in ((10, 10, 10), (100, 5.76, 100), (400, 5, 100)):
        label_steps(ax.xaxis, ["x"] * steps, steps, 6.0)
        assert len(ax.get_xticks()) == shown
        assert ax.xaxis.get_ticklabels()[0].get_size() == pytest.approx(size)


def test_pyplot_is_left_alone_and_torch_is_not_needed():
    code = (  # draws and renders, since either could load more
        "import sys, numpy as np\n"
        "from unrolled import cells\n"
        "from unrolled.network import Network\n"
        "from unrolled.lab.pictures.gates import gates\n"
        "from unrolled.lab.pictures.firing import firing\n"
        "from unrolled.lab.pictures.memory import memory\n"
        "from unrolled.lab.pictures.halves import halves\n"
        "network = Network.init(cells.gru, 2, 3, bidirectional=True, rng=0)\n"
        "trace = network.trace(np.ones((3, 1, 2)))\n"
        "for one in (gates(trace, 'h'), halves(trace), firing(trace, 'abc'), memory(trace)):\n"
        "    assert one.axes\n"
        "one._repr_png_()\n"
        "print(*sys.modules)\n"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    modules = loaded.decode().split()
    assert "matplotlib.figure" in modules
    assert {"matplotlib.pyplot", "torch", "numba"}.isdisjoint(modules)
