"""Numbers of a run by their names, and where they say they come from."""

import copy
import pickle
import re
from functools import cache

import numpy as np
import pytest
from own_cells import OWN_CELLS

from unrolled import Cell, InputError, cells, functions
from unrolled.lab.explanation import NamedNumber, arrows, at
from unrolled.lab.notation import place_of
from unrolled.network import Network

LENGTHS = [3, 5, 0, 4]
CELLS = {**cells.catalogue(), **OWN_CELLS}
WORDS = {**{name: getattr(functions, name) for name in functions.__all__}, "abs": abs}


@cache
def ran(name, bidirectional=True, layers=2, resets=False):
    """Gradients of a deep run over a ragged batch, everything in it drawn."""
    cell = CELLS[name]
    rng = np.random.default_rng(3)
    sizes = {"h": 4, "c": 6} if name in ("projected_lstm", "two_sizes") else 5
    reads = 5 if name == "output" else 3  # its input and its state are of one size
    network = Network.init(cell, reads, sizes, layers, bidirectional and reads == 3, rng)
    x = rng.standard_normal((5, 4, reads))
    drawn = [np.zeros_like(state) for state in several(network.run(x)[1])]
    state = tuple(rng.standard_normal(zeros.shape) for zeros in drawn)
    begins = rng.random((5, 4)) < 0.3 if resets else None
    trace = network.trace(x, state, LENGTHS, begins)
    dstate = tuple(rng.standard_normal(zeros.shape) for zeros in drawn)
    return trace.backward(rng.standard_normal(trace.y.shape), dstate)


def several(state):
    return state if isinstance(state, tuple) else (state,)


def reckoned(formula):
    text = str(formula).replace("·", "*").replace("−", "-")
    return float(eval(text, {"__builtins__": {}}, WORDS))


def places(gradients, name):
    """The name of one number in every layer, direction, example and step that there is."""
    network = gradients.trace.network
    for layer in range(1, network.num_layers + 1):
        for number, arrow in enumerate("→←"[: network.directions]):
            way = arrow if network.directions == 2 else ""
            for example, length in enumerate(LENGTHS, 1):
                for step in range(1, length + 1):
                    key = (step - 1, example - 1)
                    for unit in (1, gradients.trace[name, layer - 1, number].shape[2]):
                        text = f"{way}{name}_{unit}^({example})[{layer}]<{step}>"
                        yield text, (name, layer - 1, number), (*key, unit - 1)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_every_number_is_found_and_its_equation_recomputes(name, resets):
    gradients = ran(name, resets=resets)
    trace = gradients.trace
    for value in trace.network.cell.names:
        for text, key, where in list(places(gradients, value))[::13]:
            number = at(trace, text)
            assert number == trace[key][where]
            told = number.explain(digits=17, full=True)
            for side in told.sides[1:]:
                assert reckoned(side) == pytest.approx(number, rel=1e-12, abs=1e-14)
            equation = value in {e.name for e in trace.network.cell.equations.equations}
            assert len(told.sides) >= 2 if equation else told.note
            if not equation and told.sides:  # it is another number, by its name
                assert at(trace, str(told.sides[0])) == number


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_arrows_add_up_to_the_gradient_and_recompute(name, resets):
    gradients = ran(name, resets=resets)
    cell = gradients.trace.network.cell
    for value in cell.names:
        if value == cell.equations.inputs[0]:
            continue
        for text, key, where in list(places(gradients, value))[::19]:
            number = at(gradients, f"d{text}")
            assert number == gradients[key][where]
            told = number.explain(digits=17, full=True)
            assert sum(a.value for a in told.arrows) == pytest.approx(number, rel=1e-10, abs=1e-13)
            for arrow in told.arrows:
                assert reckoned(arrow.numbers) == pytest.approx(arrow.value, rel=1e-10, abs=1e-13)
            for side in told.sides[1:]:
                assert reckoned(side) == pytest.approx(number, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("name", CELLS)
def test_the_gradients_of_input_initial_state_and_parameters_add_up_too(name):
    gradients = ran(name)
    trace = gradients.trace
    read = trace.network.cell.equations.inputs[0]
    for example, length in enumerate(LENGTHS, 1):
        for step in range(1, length + 1, 2):
            for layer in (1, 2):
                number = at(gradients, f"d{read}_1^({example})[{layer}]<{step}>")
                parts = (one.x[step - 1, example - 1, 0] for one in gradients.layers[layer - 1])
                assert number == pytest.approx(sum(parts))
                found = arrows(gradients, f"{read}_1^({example})[{layer}]<{step}>")
                assert sum(arrow.value for arrow in found) == pytest.approx(number, abs=1e-13)
    ways = "→←" if trace.network.directions == 2 else [""]
    for state, gradient in zip(trace.network.cell.states, several(gradients.state), strict=True):
        for direction, arrow in enumerate(ways):
            number = at(gradients, f"d{arrow}{state}_2^(2)[1]<0>")
            assert number == gradient[direction, 1, 1]
            found = arrows(gradients, f"{arrow}{state}_2^(2)[1]<0>")
            assert sum(arrow.value for arrow in found) == pytest.approx(number, abs=1e-13)
    for block, gradient in gradients.params[1][-1].items():
        entry = ",".join("2" for _ in gradient.shape)
        number = at(gradients, f"d{ways[-1]}{block}[{entry}][2]")
        assert number == gradient[tuple(1 for _ in gradient.shape)]
        told = number.explain(digits=17, full=True)
        assert sum(a.value for a in told.arrows) == pytest.approx(number, rel=1e-10, abs=1e-13)
        assert reckoned(told.sides[1]) == pytest.approx(number, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize(
    "spelling",
    [
        "→h_5^(2)[1]<4>", "→a_5^(2)[1]<4>", "a_5^{(2)[1]<4>} forward", "<4>[1](2)→a_5",
        r"\overrightarrow{a}_{5}^{(2)[1]\langle 4\rangle}", "→a_5^(2)[1]⟨4⟩",
        "a\u20d7_5 ^(2)[1] ‹4›",
        r"\overrightarrow{h}^{(2)[1]\left\langle 4\right\rangle}_5", r"$\vec{a}_5^{[1](2)<4>}$",
    ],
)  # fmt: skip
def test_one_number_has_many_spellings(spelling):
    trace = ran("lstm").trace
    number = at(trace, spelling)
    assert number.name == "→h_5^(2)[1]<4>"
    assert number == trace["h", 0, 0][3, 1, 4]


@pytest.mark.parametrize("name", ["lstm", "gru", "two_sizes"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_names_and_their_latex_are_read_back(name, bidirectional):
    gradients = ran(name, bidirectional)
    for value in gradients.trace.network.cell.names:
        for text, _, _ in list(places(gradients, value))[::13]:
            for asked in (text, f"d{text}"):
                number = at(gradients, asked)
                assert at(gradients, number.name).place == number.place
                assert at(gradients, number.latex).place == number.place


def test_the_words_of_the_course():
    trace = ran("lstm", False).trace
    for word, name in {
        "Γ_i": "i", "Γ_u": "i", "Gamma_f": "f", r"\Gamma_{o}": "o", "c~": "g", "c̃": "g",
        r"\tilde{c}": "g", "a": "h", "a_prev": "h_prev", "c": "c",
    }.items():  # fmt: skip
        assert at(trace, f"{word}_2^(1)[2]<3>").name == f"{name}_2^(1)[2]<3>"
    trace = ran("gru", False).trace
    assert at(trace, "Γ_r_2^(1)[2]<3>").name == "r_2^(1)[2]<3>"
    assert at(trace, "c~_2^(1)[2]<3>").name == "n_2^(1)[2]<3>"
    with pytest.raises(InputError, match=r"h = \(1 - z\) \* n \+ z \* h_prev.*Γ_u is 1 − z"):
        at(trace, "Γ_u_2^(1)[2]<3>")
    with pytest.raises(InputError, match="has no value Γ_f"):
        at(trace, "Γ_f_2^(1)[2]<3>")


def test_a_cells_own_names_come_first():
    cell = Cell.parse(
        "def own(x, a_prev, *, W, U):\n"
        "    dx = tanh(W.dx @ x)\n    y = dx * 2\n    a = y + U.a @ a_prev\n    return a\n"
    )
    network = Network.init(cell, 3, 4, rng=0)
    gradients = network.trace(np.ones((2, 1, 3))).backward(np.ones((2, 1, 4)))
    assert at(gradients, "dx_1<2>") == gradients.trace["dx"][1, 0, 0]
    assert at(gradients, "∂x_1<2>") == gradients.x[1, 0, 0]
    assert at(gradients, "ddx_1<2>") == gradients["dx"][1, 0, 0]
    assert at(gradients, "y_1<2>") == gradients.trace["y"][1, 0, 0]
    assert at(gradients, "∂x_1<2>").explain().arrows[0].source == "dx"


def test_names_with_accents_are_found():
    cell = Cell.parse(
        "def own(x, h_prev, *, W):\n    ä = W.h @ x\n    h = ä + h_prev\n    return h\n"
    )
    trace = Network.init(cell, 3, 4, rng=0).trace(np.ones((2, 1, 3)))
    assert at(trace, "ä_2<1>") == trace["ä"][0, 0, 1]


def test_a_number_is_a_float_and_says_its_name():
    gradients = ran("lstm", False)
    number = at(gradients, "h_5^(2)[1]<4>")
    assert isinstance(number, float)
    assert number + 1 == 1 + float(number)
    assert f"{number:.3f}" == f"{float(number):.3f}"
    assert repr(number) == f"h_5^(2)[1]<4> = {float(number):.8g}"
    assert str(number) == str(float(number))
    assert number.latex == r"h_{5}^{(2)[1]\langle 4\rangle}"
    for same in (copy.copy(number), copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert same == number
        assert same.name == number.name
        assert str(same.origin) == str(number.origin)
    with pytest.raises(AttributeError, match="cannot be changed"):
        number.place = None
    with pytest.raises(AttributeError):
        number.other = 1
    assert at(gradients, "dh_prev_5^(2)[1]<4>").latex == (
        r"\mathrm{d}h_{5}^{\mathrm{prev}(2)[1]\langle 4\rangle}"
    )
    assert at(ran("lstm"), "d→W.i[2,3][1]").latex == r"\mathrm{d}\overrightarrow{W_{i}}^{[1]}[2,3]"


@pytest.fixture
def small():
    """One layer whose numbers fit in a head."""
    params = {
        "W.h": np.array([[0.5, -0.25], [1.0, 0.0]]),
        "U.h": np.array([[0.1, 0.2], [-0.3, 0.4]]),
        "b.h": np.array([0.0, 0.125]),
    }
    x = np.array([[[1.0, 2.0]], [[0.5, -1.0]], [[0.0, 1.0]]])
    trace = Network(cells.simple, ((params,),)).trace(x)
    return trace.backward(np.array([[[1.0, 0.0]], [[0.5, 0.0]], [[0.0, 2.0]]]))


def test_an_equation_is_told_in_letters_in_numbers_and_worked_out(small):
    assert str(at(small.trace, "h_1<2>").origin) == (
        "h_1^(1)[1]<2> = tanh(W.h[1,:] · x + U.h[1,:] · h_prev + b.h[1])\n"
        "              = tanh(0.5·0.5 − 0.25·(−1) + 0.1·0 + 0.2·0.8093 + 0)\n"
        "              = tanh(0.6619)\n"
        "              = 0.5796"
    )
    assert at(small.trace, "h_1<2>").origin.latex == (
        r"""\begin{aligned}
    h_{1}^{(1)[1]\langle 2\rangle} &= \tanh(W_{h}[1,:] \cdot x^{\langle 2\rangle} + """
        r"""U_{h}[1,:] \cdot h^{\langle 1\rangle} + b_{h}[1]) \\
    &= \tanh(0.5 \cdot 0.5 - 0.25 \cdot (-1) + 0.1 \cdot 0 + 0.2 \cdot 0.8093 + 0) \\
    &= \tanh(0.6619) \\
    &= 0.5796
\end{aligned}"""
    )
    assert "$$" in at(small.trace, "h_1<2>")._repr_markdown_()


def test_the_chain_rule_is_told_arrow_by_arrow(small):
    assert str(at(small, "dh_2<2>").origin) == (
        "dh_2^(1)[1]<2> = dy_2^(1)<2> + U.h[:,2] · dh_pre<3>\n"
        "               = 0 + 0.7532\n"
        "               = 0.7532\n"
        "  from the output: dy_2^(1)<2> = 0\n"
        "  from h at step 3: U.h[:,2] · dh_pre<3> = 0.2·0 + 0.4·1.883 = 0.7532\n"
        "  where dh_pre_k = dh_k·(1 − h_k·h_k)"
    )
    output, following = arrows(small, "h_2<2>")
    assert (output.name, output.step) == ("dy_2^(1)<2>", 2)
    assert (following.name, following.step) == ("dh^(1)[1]<3>", 3)
    assert following.letters.latex == (
        r"U_{h}[:,2] \cdot \mathrm{d}h^{\mathrm{pre}\langle 3\rangle}"
    )
    assert following.numbers.latex == r"0.2 \cdot 0 + 0.4 \cdot 1.883"
    assert str(at(small, "dW.h[1,2]").origin).splitlines()[0] == (
        "dW.h[1,2] = dh_pre_1^(1)<1>·x_2^(1)<1> + dh_pre_1^(1)<2>·x_2^(1)<2> + "
        "dh_pre_1^(1)<3>·x_2^(1)<3>"
    )


@pytest.mark.parametrize("name", CELLS)
def test_latex_has_no_bare_word_and_no_open_brace(name):
    gradients = ran(name)
    for value in gradients.trace.network.cell.names:
        for text, _, _ in list(places(gradients, value))[::37]:
            for number in (at(gradients, text), at(gradients, f"d{text}")):
                typeset = number.origin.latex
                assert typeset.count("{") == typeset.count("}")
                for words in re.findall(r"\\text\{([^}]*)\}", typeset):
                    assert "_" not in words.replace(r"\_", "")


def test_what_is_given_or_another_number_says_so():
    gradients = ran("gru")
    for text, words in {
        "x_1^(2)<3>": "given: the input",
        "→h_1^(2)[1]<0>": "given: the initial state",
        "→U.n[1,2][2]": "given: a parameter",
        "dy_1^(2)<3>": "given: what backward was called with",
        "→h_prev_1^(2)[1]<1>": "→h_1^(2)[1]<0>",
        "→h_prev_1^(2)[1]<4>": "→h_1^(2)[1]<3>",
        "←h_prev_1^(2)[1]<4>": "←h_1^(2)[1]<5>",
        "←h_prev_1^(1)[1]<3>": "←h_1^(1)[1]<0>",  # the example ends there
        "x_2^(2)[2]<3>": "→h_2^(2)[1]<3>",
        "x_7^(2)[2]<3>": "←h_2^(2)[1]<3>",
        "y_7^(2)<3>": "←h_2^(2)[2]<3>",
    }.items():
        assert words in str(at(gradients, text).origin)
    steps = [arrow.step for arrow in arrows(gradients, "←h_1^(2)[2]<4>")]
    assert steps == [4, 3, 3, 3, 3]  # the output, and four ways into the next, which is step 3
    last = arrows(gradients, "←h_1^(2)[2]<1>")
    assert [arrow.source for arrow in last] == ["the output", "the last state, given"]
    assert last[1].value == several(gradients.layers[1][1].last)[0][1, 0]
    sources = [arrow.source for arrow in arrows(gradients, "→h_1^(2)[1]<5>")]
    assert sources[:2] == ["layer 2, which reads it forward", "layer 2, which reads it backward"]


def test_a_factor_below_zero_has_brackets():
    gradients = ran("lstm", False)
    terms = arrows(gradients, "dW.i[1,1][1]")
    below = [term for term in terms if at(gradients.trace, "x_1" + term.name[4:]) < 0]
    assert below
    for term in below:
        assert re.search(r"·\(−\d[^·]*\)$", str(term.numbers))
        assert re.search(r" \\cdot \(-\d.*\)$", term.numbers.latex)


def test_a_wide_formula_is_broken_before_a_sign():
    typeset = at(ran("lstm", False).trace, "i_1^(1)[2]<2>").explain(full=True).latex
    lines = typeset.splitlines()[1:-1]
    going_on = [line for line in lines if line.startswith(r"    & \qquad")]
    assert going_on
    assert all(line.removeprefix(r"    & \qquad ")[0] in "+-=" for line in going_on)
    assert all(len(line) < 200 for line in lines)
    joined = typeset.replace(" \\\\\n    & \\qquad", "")
    assert joined.count("&") == joined.count("=") == 4
    fraction = Cell.parse(
        "def one(x, h_prev, *, b):\n"
        "    h = (x + b.a + b.b + b.c + b.d + b.e) / (x + b.f + b.g + b.h + b.i)\n"
        "    return h\n"
    )
    trace = Network.init(fraction, 3, 3, rng=0).trace(np.full((1, 3), 0.123456789))
    assert r"& \qquad" not in at(trace, "h_1").explain(digits=9).latex  # a fraction stays whole


def test_long_sums_are_shortened_unless_asked_for():
    number = at(ran("lstm", False).trace, "i_1^(1)[2]<2>")
    assert str(number.explain().sides[1]).count("…") == 2
    assert "…" not in str(number.explain(full=True))
    assert "0.12345678" not in str(number.explain(digits=3))
    gradient = at(ran("lstm", False), "dW.i[1,1][1]").explain()
    assert "… and 4 more terms" in str(gradient)
    assert len(gradient.arrows) == sum(LENGTHS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no number. Write one like a_5"),
        ("(2)", "names no number"),
        ("h_5 + 1", "names no number"),
        ("→h_1^(2)[3]<4>", "there is no layer 3; they are counted from 1 to 2"),
        ("→h_1^(2)[0]<4>", "there is no layer 0"),
        ("→h_9^(2)[1]<4>", "there is no unit 9; they are counted from 1 to 5"),
        ("→h_1^(5)[1]<4>", "there is no example 5"),
        ("→h_1^(1)[1]<4>", "example 1 ends with step 3"),
        ("→h_1^(1)[1]<9>", "there is no step 9; they are counted from 1 to 3"),
        ("→h_1^(3)[1]<1>", "example 3 has no steps"),
        ("→i_1^(1)[1]<0>", "only states have a step 0"),
        ("→h_1[1]<1>", r"say which example: there are 4, so add \(2\)"),
        ("→h_1(1)<1>", r"say which layer: there are 2, so add \[2\]"),
        ("→h_1(1)[1]", "say which step: there are 3, so add <2>"),
        ("→h(1)[1]<1>", "say which unit: there are 5, so add it to h_"),
        ("h_1(1)[1]<1>", "in both directions: say →h or ←h, or put the word forward"),
        ("→y_1(1)<1>", "y is the output of both directions; ask for h"),
        ("y_1(1)[1]<1>", "y is the output of the last layer, 2; ask for h"),
        ("→←h_1(1)[1]<1>", "names both directions"),
        ("→hprev_1(1)[1]<1>", r"no value hprev; it has x, h_prev.*Did you mean h_prev\?"),
        ("→Γ_q_1(1)[1]<1>", r"Did you mean Γ_"),
        ("→dq_1(1)[1]<1>", "has no value dq"),
        ("→dh_1(1)[1]<1>", "is a gradient, and a trace has none"),
        ("∂→h_1(1)[1]<1>", "is a gradient, and a trace has none"),
        ("→W.i[2,9][1]", "there is no column 9"),
        ("→W.i[6,1][1]", "there is no row 6"),
        ("→W.i[1]", "say which layer"),
        ("→W.i[1,1][1]<2>", "W.i is a parameter, the same for every step"),
        ("→b.i[1,2][1]", r"an entry of b.i, of shape \(5,\), is written b.i\[2\]"),
        ("→h[1,2]", "h is a value; write its unit as h_1"),
    ],
)
def test_what_is_not_there_gets_a_sentence(text, problem):
    with pytest.raises(InputError, match=problem):
        at(ran("lstm").trace, text)


def test_other_mistakes_get_a_sentence():
    network = Network.init(cells.lstm, 3, 5, rng=0)
    trace = network.trace(np.ones((4, 1, 3)), names=["i"])
    assert at(trace, "i_2<3>").name == "i_2^(1)[1]<3>"
    with pytest.raises(InputError, match=r"f was not kept: .*names=i"):
        at(trace, "f_2<3>")
    with pytest.raises(InputError, match=" was not kept"):
        _ = at(trace, "i_2<3>").origin
    with pytest.raises(InputError, match="this network reads forward only"):
        at(trace, "←i_2<3>")
    with pytest.raises(InputError, match=r"reads a Trace .* found Network"):
        at(network, "i_2<3>")
    with pytest.raises(InputError, match="give what trace"):
        arrows(trace, "h_2<3>")


def test_what_there_is_one_of_can_be_left_out():
    trace = Network.init(cells.gru, 3, 1, rng=0).trace(np.ones((1, 3)))
    assert isinstance(at(trace, "z"), NamedNumber)
    assert at(trace, "z").name == "z_1^(1)[1]<1>"
    assert str(place_of(trace, "x_2")) == "x_2^(1)<1>"
