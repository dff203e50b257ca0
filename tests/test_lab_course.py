"""The course lab's functions give the numbers of the course, digit by digit.

The draws are those of the course: the legacy generator with seed 1, arrays in the stated order.
The values were computed apart from this package, with other engines where these have the cell.
"""

import numpy as np
import pytest
from course_draws import SMALL, Draws, check_gradients

from unrolled import Cell, InputError, cells
from unrolled.lab import course
from unrolled.network import Network

N_X, N_A, N_Y, M = 3, 5, 2, 10
X1, A1 = (N_X, M), (N_A, M)
GATE, BIAS = (N_A, N_A + N_X), (N_A, 1)
RNN = {"Waa": (N_A, N_A), "Wax": (N_A, N_X), "Wya": (N_Y, N_A), "ba": BIAS, "by": (N_Y, 1)}
RNN_BACKWARD = {key: RNN[key] for key in ("Wax", "Waa", "Wya", "ba", "by")}
GATES = {"Wf": GATE, "bf": BIAS, "Wi": GATE, "bi": BIAS, "Wo": GATE, "bo": BIAS, "Wc": GATE,
         "bc": BIAS}  # fmt: skip
OUTPUT = {"Wy": (N_Y, N_A), "by": (N_Y, 1)}
LSTM = {**GATES, **OUTPUT}
GRU = {"Wu": GATE, "bu": BIAS, "Wr": GATE, "br": BIAS, "Wc": GATE, "bc": BIAS}
NO_OUTPUT = {key: np.zeros(shape) for key, shape in OUTPUT.items()}


def close(found, *expected, digits=None):
    """Equal to 1e-8 or better; to half a unit of the last digit where fewer were printed."""
    tolerance = {"rtol": 1e-10, "atol": 1e-13} if digits is None else {"atol": 0.6 * 10**-digits}
    found = np.ravel(found)
    assert found.shape == (len(expected),)
    np.testing.assert_allclose(found, expected, **{"rtol": 0, **tolerance})


# forward


def test_rnn_cell_forward():
    draw = Draws()
    xt, a_prev = draw(*X1), draw(*A1)
    parameters = draw.all(RNN)
    a_next, yt_pred, cache = course.rnn_cell_forward(xt, a_prev, parameters)
    assert a_next.shape == (5, 10)
    assert yt_pred.shape == (2, 10)
    close(
        a_next[4],
        *(0.5958454361396669, 0.18141801524270917, 0.6131186601837866, 0.9980821836482744),
        *(0.8501620098759239, 0.999809777363631, -0.18887155412988774, 0.9981555128490937),
        *(0.6531150966861294, 0.8287203739542315),
    )
    close(
        yt_pred[1],
        *(0.9888161020372672, 0.01682021075032578, 0.21140898750443413, 0.3681746681065052),
        *(0.9898838697014841, 0.8894521151515652, 0.3692022383155003, 0.9966312028640353),
        *(0.9982559002073211, 0.1774652624571198),
    )
    np.testing.assert_allclose(yt_pred.sum(axis=0), 1)
    assert len(cache) == 4
    for kept, given in zip(cache[:3], (a_next, a_prev, xt), strict=True):
        np.testing.assert_array_equal(kept, given)
    assert cache[3] is parameters


def test_rnn_forward():
    draw = Draws()
    x, a0 = draw(N_X, M, 4), draw(*A1)
    parameters = draw.all(RNN)
    a, y_pred, caches = course.rnn_forward(x, a0, parameters)
    assert a.shape == (5, 10, 4)
    assert y_pred.shape == (2, 10, 4)
    close(
        a[4][1],
        *(-0.9999937511218437, 0.7791123524295185, -0.9986146863678004, -0.9983326666674084),
    )
    close(
        y_pred[1][3],
        *(0.795603731702095, 0.8622486063005221, 0.11118256946945909, 0.8151594655010063),
    )
    close(a.sum(), 53.62884406023703)
    close(y_pred.sum(), 40)
    assert len(caches) == 2
    assert len(caches[0]) == 4
    close(
        caches[1][1][3],
        *(-1.1425181980221402, -0.3493427224128775, -0.2088942333747781, 0.5866231911821976),
    )
    for step, (a_next, a_prev, xt, _) in enumerate(caches[0]):
        np.testing.assert_array_equal(a_next, a[:, :, step])
        np.testing.assert_array_equal(a_prev, a[:, :, step - 1] if step else a0)
        np.testing.assert_array_equal(xt, x[:, :, step])


def test_lstm_cell_forward():
    draw = Draws()
    xt, a_prev, c_prev = draw(*X1), draw(*A1), draw(*A1)
    parameters = draw.all(LSTM)
    a_next, c_next, yt, cache = course.lstm_cell_forward(xt, a_prev, c_prev, parameters)
    close(
        a_next[4],
        *(-0.664084712747323, 0.00369210071789173, 0.0208835701625132, 0.2283416682339),
        *(-0.8557533854879655, 0.00138482308332399, 0.7656653077897938, 0.34631420937755314),
        *(-0.00215673951503999, 0.43827274503824876),
    )
    close(
        c_next[2],
        *(0.6326780497534749, 1.0057084884998637, 0.355044742528826, 0.20690913466318617),
        *(-1.6456671751753493, 0.11832941898220026, 0.764498107990279, -0.0981561038166735),
        *(-0.7434842469584431, -0.26810932290432954),
    )
    close(
        yt[1],
        *(0.7991391305203184, 0.15986619112198291, 0.2241212164895217, 0.15606107750371612),
        *(0.970572105527287, 0.31146381431597453, 0.00943006725965813, 0.12666352948352655),
        *(0.3938017174101486, 0.07828381153783476),
    )
    close(
        cache[1][3],
        *(-0.16263996282137544, 1.0372932805475017, 0.7293808151461599, -0.5410171916754002),
        *(0.02752074087421796, -0.30821874105971536, 0.07651100956659866, -1.0375289449432632),
        *(1.4121997746336703, -0.37647421804024783),
    )
    assert len(cache) == 10
    ft, it, cct, ot = cache[4:8]
    np.testing.assert_allclose(ft * c_prev + it * cct, c_next)
    np.testing.assert_allclose(ot * np.tanh(c_next), a_next)
    for kept, given in zip(cache[:4], (a_next, c_next, a_prev, c_prev), strict=True):
        np.testing.assert_array_equal(kept, given)
    np.testing.assert_array_equal(cache[8], xt)
    assert cache[9] is parameters


def test_lstm_forward():
    draw = Draws()
    x, a0 = draw(N_X, M, 7), draw(*A1)
    a, y, c, caches = course.lstm_forward(x, a0, draw.all(LSTM))
    assert a.shape == c.shape == (5, 10, 7)
    assert y.shape == (2, 10, 7)
    close(a[4][3][6], 0.1721177675329167)
    close(y[1][4][3], 0.9508734618501101)
    close(c[1][2][1], -0.8555449167181983)
    close(
        caches[1][1][1],
        *(0.8279746426072462, 0.2300947353643834, 0.7620111803120247, -0.22232814261035927),
        *(-0.20075806892999745, 0.1865613909882843, 0.4100516472082563),
    )
    assert len(caches) == 2
    assert len(caches[0]) == 7
    np.testing.assert_array_equal(caches[0][0][3], 0)  # c0


# backward


def rnn_cell_gradients(stale_bias=False):
    draw = Draws()
    xt, a_prev = draw(*X1), draw(*A1)
    parameters = draw.all(RNN_BACKWARD)
    if stale_bias:
        before = Draws()
        before(N_X, M, 4), before(*A1)
        parameters = {**parameters, "ba": before.all(RNN)["ba"]}
    *_, cache = course.rnn_cell_forward(xt, a_prev, parameters)
    return course.rnn_cell_backward(draw(*A1), cache)


def five(gradients, dx, da):
    return [
        *np.ravel(gradients[dx][1][2]),
        gradients[da][2][3],
        gradients["dWax"][3][1],
        gradients["dWaa"][1][2],
        gradients["dba"][4][0],
    ]


def test_rnn_cell_backward():
    gradients = rnn_cell_gradients()
    assert [*gradients] == ["dxt", "da_prev", "dWax", "dWaa", "dba"]
    shapes = [gradient.shape for gradient in gradients.values()]
    assert shapes == [(3, 10), (5, 10), (5, 3), (5, 5), (5, 1)]
    close(
        five(gradients, "dxt", "da_prev"),
        *(-1.3872130506020928, -0.1523994937739543, 0.41077282493545836),
        *(1.1503450668497135, 0.2002349138798538),
    )


# The table that was in circulation with the first version of the lab.
STALE = (-0.46056410305887957, 0.0842968653806773, 0.39308187392193045, -0.28483955786960674,
         0.8051716648049104)  # fmt: skip


def test_the_first_table_of_rnn_cell_backward_comes_from_a_bias_left_over_from_another_test():
    close(five(rnn_cell_gradients(stale_bias=True), "dxt", "da_prev"), *STALE)
    right = five(rnn_cell_gradients(), "dxt", "da_prev")
    assert not np.any(np.isclose(right, STALE, rtol=0.01))


def test_rnn_backward():
    draw = Draws()
    x, a0 = draw(N_X, M, 4), draw(*A1)
    _, _, caches = course.rnn_forward(x, a0, draw.all(RNN_BACKWARD))
    gradients = course.rnn_backward(draw(N_A, M, 4), caches)
    assert [*gradients] == ["dx", "da0", "dWax", "dWaa", "dba"]
    shapes = [gradient.shape for gradient in gradients.values()]
    assert shapes == [(3, 10, 4), (5, 10), (5, 3), (5, 5), (5, 1)]
    close(
        five(gradients, "dx", "da0"),
        *(-2.071016886851007, -0.592556274588873, 0.02466854778006253, 0.01483316637574825),
        *(-0.3149423751266506, 11.264104496527771, 2.303333126579893, -0.7474772166221403),
    )


LSTM_KEYS = ["dWf", "dbf", "dWi", "dbi", "dWc", "dbc", "dWo", "dbo"]


def lstm_numbers(gradients):
    return [
        *(gradients["dWf"][3][1], gradients["dWi"][1][2], gradients["dWc"][3][1]),
        *(gradients["dWo"][1][2], *(gradients[f"db{gate}"][4][0] for gate in "fico")),
    ]


def test_lstm_cell_backward():
    draw = Draws()
    xt, a_prev, c_prev = draw(*X1), draw(*A1), draw(*A1)
    *_, cache = course.lstm_cell_forward(xt, a_prev, c_prev, draw.all(LSTM))
    gradients = course.lstm_cell_backward(draw(*A1), draw(*A1), cache)
    assert [*gradients] == ["dxt", "da_prev", "dc_prev", *LSTM_KEYS]
    shapes = [gradient.shape for gradient in gradients.values()]
    assert shapes == [(3, 10), (5, 10), (5, 10), *[(5, 8), (5, 1)] * 4]
    close(gradients["dxt"][1][2], 3.2305591151091875)
    close(gradients["da_prev"][2][3], -0.06396214197109236)
    close(gradients["dc_prev"][2][3], 0.7975220387970015)
    close(
        lstm_numbers(gradients),
        *(-0.1479548381644968, 1.0574980552259903, 2.304562163687667, 0.33131159528921084),
        *(0.188646372403535, -0.40142490909675665, 0.25587762583018453, 0.1389334167611629),
    )


def lstm_run(steps):
    """The draws of the lab's last test: seven steps are run, and some come back."""
    draw = Draws()
    x, a0 = draw(N_X, M, 7), draw(*A1)
    *_, caches = course.lstm_forward(x, a0, {**draw.all(GATES), **NO_OUTPUT})
    return draw(N_A, M, steps), caches


def all_lstm_numbers(gradients):
    return [*gradients["dx"][1][2], gradients["da0"][2][3], *lstm_numbers(gradients)]


def test_lstm_backward_counts_the_steps_that_come_back():
    da, caches = lstm_run(4)
    gradients = course.lstm_backward(da, caches)
    assert [*gradients] == ["dx", "da0", *LSTM_KEYS]
    shapes = [gradient.shape for gradient in gradients.values()]
    assert shapes == [(3, 10, 4), (5, 10), *[(5, 8), (5, 1)] * 4]
    close(
        all_lstm_numbers(gradients),
        *(0.00218253903345156, 0.28205374832898944, -0.48292508192306427, -0.43281115395362296),
        *(0.3127703102572602, -0.08098023109383466, 0.4051243309298183, -0.07937467355121496),
        *(0.03894877576298695, -0.15745656546995196, -0.5084833294481497, -0.425108175038536),
        -0.17958196207090732,
    )


def test_lstm_backward_over_the_whole_length():
    da, caches = lstm_run(7)
    gradients = course.lstm_backward(da, caches)
    close(
        all_lstm_numbers(gradients),
        *(-0.03559116097652347, 0.16214985704457283, 0.5517464454346912, 0.46615569554876685),
        *(0.4352902082903002, 0.16976809126309522, 0.6255026052326188),
        *(-0.1721353534064506, -0.22638467525191924, 0.28679382245026486, 0.10261063342290468),
        *(0.06417416071020463, -0.13413502271602878, 0.12896283809314374, 0.32840043959100695),
        -0.7701848872277554,
    )
    stepwise, dc0 = lstm_by_steps(da, caches)
    close(dc0[2][3], 0.0017781452334752655)
    for key, gradient in gradients.items():
        np.testing.assert_allclose(stepwise[key], gradient, rtol=1e-10, atol=1e-13)


def lstm_by_steps(da, caches, carry_a=True, carry_c=True):
    """Backward step by step, with the gradients of the states carried or forgotten."""
    length = da.shape[2]
    da_prev = dc_prev = np.zeros(A1)
    found = {"dx": np.zeros((N_X, M, length))}
    for step in reversed(range(length)):
        back = course.lstm_cell_backward(
            da[:, :, step] + carry_a * da_prev, carry_c * dc_prev, caches[0][step]
        )
        da_prev, dc_prev = back["da_prev"], back["dc_prev"]
        found["dx"][:, :, step] = back["dxt"]
        for key in LSTM_KEYS:
            found[key] = found.get(key, 0) + back[key]
    return {**found, "da0": da_prev}, dc_prev


# Tables in circulation: what is not carried back, and the numbers (dx, da0, then W and b of each
# gate), of which some have 8 digits.
NOT_CARRIED = {
    (False, False): (
        *(-0.0017331318249517, 0.08287441929148305, -0.30545663469528067, -0.43281115395362296),
        *(-0.09591150195400468, -0.06981985612744011, 0.10237182024854771),
        *(-0.062498379492745254, 0.04843891314443012),
        *(-0.05657879957, -0.15399065265, -0.29691141507, -0.29798343624),
    ),
    (True, False): (
        *(0.00021896, 0.11656589, -0.53763541, -0.43281115),
        *(0.01258211501225, -0.09048482291127, 0.12059815370839),
        *(-0.09754020836818, 0.02792606616309),
        *(-0.068336, -0.290454, -0.397544, -0.234100),
    ),
    (False, True): (
        *(0.00296954, 0.24084671, -0.25074631, -0.43281115),
        *(-0.01828646150056, -0.06685625837651, 0.01653664501776),
        *(-0.05752283221607, 0.04843891314443),
        *(-0.105265, -0.272726, -0.282125, -0.297983),
    ),
}


@pytest.mark.parametrize(("carry_a", "carry_c"), NOT_CARRIED)
def test_the_wrong_tables_of_lstm_backward_come_from_gradients_not_carried(carry_a, carry_c):
    da, caches = lstm_run(4)
    wrong = NOT_CARRIED[carry_a, carry_c]
    made, _ = lstm_by_steps(da, caches, carry_a, carry_c)
    ours = all_lstm_numbers(course.lstm_backward(da, caches))
    for position, (number, expected, right) in enumerate(
        zip(all_lstm_numbers(made), wrong, ours, strict=True)
    ):
        printed = len(repr(expected).partition(".")[2])
        close(number, expected, digits=min(printed, 13) if printed > 6 else 6)
        if position != 3:  # the last step has nothing behind it to carry
            assert abs(right - expected) > 1e-4


# the GRU, and other cells that the course describes and never tests


def gru_run(forward, parameters):
    draw = Draws()
    x, c0 = draw(N_X, M, 4), draw(*A1)
    drawn = draw.all(GRU)
    return forward(x, c0, {**{key: drawn[key] for key in parameters}, **NO_OUTPUT})


@pytest.mark.parametrize(
    ("forward", "parameters", "row", "one", "total"),
    [
        (
            course.gru_simplified_forward,
            ["Wu", "bu", "Wc", "bc"],
            (0.6292305581061847, -0.07343592012385348, 0.12032176557045779, -0.16181714807154818),
            -0.5844972178475188,
            -20.319828790660246,
        ),
        (
            course.gru_forward,
            [*GRU],
            (0.8258077023193531, -0.07845814990162336, 0.1226213427659961, -0.5003894003399991),
            -0.6086556443821876,
            -23.461148092443494,
        ),
    ],
)
def test_gru_forward(forward, parameters, row, one, total):
    c, y, (steps, x) = gru_run(forward, parameters)
    assert c.shape == (5, 10, 4)
    assert y.shape == (2, 10, 4)
    assert x.shape == (3, 10, 4)
    close(c[4][1], *row)
    close(c[1][2][1], one)
    close(c.sum(), total)
    for step, (c_next, c_prev, ut, *_, cct, _, _) in enumerate(steps):  # Γu replaces
        np.testing.assert_allclose(ut * cct + (1 - ut) * c_prev, c_next, atol=1e-14)
        np.testing.assert_array_equal(c_next, c[:, :, step])


def test_gru_gates_by_hand():
    draw = Draws()
    xt, c_prev = draw(*X1), draw(*A1)
    p = {**draw.all(GRU), **NO_OUTPUT}

    def gate(letter, state):
        return p[f"W{letter}"] @ np.concatenate([state, xt]) + p[f"b{letter}"]

    c_next, _, cache = course.gru_cell_forward(xt, c_prev, p)
    ut, rt = (1 / (1 + np.exp(-gate(letter, c_prev))) for letter in "ur")
    cct = np.tanh(gate("c", rt * c_prev))
    expected = (ut * cct + (1 - ut) * c_prev, c_prev, ut, rt, cct, xt)
    for kept, value in zip(cache[:6], expected, strict=True):
        np.testing.assert_allclose(kept, value, rtol=1e-12, atol=1e-14)
    assert cache[6] is p
    np.testing.assert_array_equal(c_next, cache[0])
    _, _, cache = course.gru_simplified_cell_forward(xt, c_prev, p)
    cct = np.tanh(gate("c", c_prev))
    expected = (ut * cct + (1 - ut) * c_prev, c_prev, ut, cct, xt)
    for kept, value in zip(cache[:5], expected, strict=True):
        np.testing.assert_allclose(kept, value, rtol=1e-12, atol=1e-14)


def blocks(drawn, letters, sign=None):
    """The catalogue's blocks of matrices for [a; x]."""
    found = {}
    for theirs, ours in letters.items():
        factor = (sign or {}).get(theirs, 1)
        found[f"U.{ours}"] = factor * drawn[f"W{theirs}"][:, :N_A]
        found[f"W.{ours}"] = factor * drawn[f"W{theirs}"][:, N_A:]
        found[f"b.{ours}"] = factor * drawn[f"b{theirs}"][:, 0]
    return found


def test_gru_with_the_reset_after_the_product_is_another_function():
    draw = Draws()
    x, c0 = draw(N_X, M, 4), draw(*A1)
    params = blocks(draw.all(GRU), {"u": "z", "r": "r", "c": "n"}, {"u": -1})
    params["b_U.n"] = np.zeros(N_A)  # the candidate's bias stands outside of the reset
    trace = Network(cells.gru, ((params,),)).trace(x.transpose(2, 1, 0), c0.T[None])
    c = trace.y.transpose(2, 1, 0)
    close(
        c[4][1],
        *(0.4223384653418985, -0.16983880847480204, -0.01479458715508054, -0.333697519095193),
    )
    close(c[1][2][1], -0.5824838470771864)
    close(c.sum(), -14.126260294425355)


COUPLED_BY_INPUT = cells.lstm.text.replace("f = sigmoid(W.f @ x + U.f @ h_prev + b.f)", "f = 1 - i")
VARIANTS = {
    "vanilla": (
        cells.lstm,
        (-0.26393208115368344, 0.21198977211583522, 0.2880028660287752, 0.11958467690478904),
        -0.6879063711694743,
        2.447477078759351,
    ),
    "peephole": (
        cells.peephole_lstm,
        (-0.7662103791246107, 0.05742156814314892, 0.0910003286061118, 0.0725193347066819),
        -0.49701600512925215,
        6.168889065590831,
    ),
    "coupled, i = 1 - f": (
        cells.coupled_lstm,
        (-0.2513490420687215, 0.204257231813988, 0.28349998171559276, 0.2992653069170367),
        -0.9095753701504342,
        6.150453685186911,
    ),
    "coupled, f = 1 - i": (
        Cell.parse(COUPLED_BY_INPUT),
        (-0.27752117558313527, 0.20812320149512403, 0.2933677138106333, 0.25683650721326734),
        -0.4024845788933164,
        -2.349255955400194,
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_the_lstm(variant):
    cell, row, one, total = VARIANTS[variant]
    draw = Draws()
    x, a0, c0 = draw(N_X, M, 4), draw(*A1), draw(*A1)
    params = blocks(draw.all(GATES), {"f": "f", "i": "i", "o": "o", "c": "g"})
    params |= {f"P.{gate}": draw(*BIAS)[:, 0] for gate in "fio"}
    params = {block: array for block, array in params.items() if block in cell.sizes.shapes}
    states = (a0.T[None], c0.T[None])
    trace = Network(cell, ((params,),)).trace(x.transpose(2, 1, 0), states)
    a, c = trace["h"].transpose(2, 1, 0), trace["c"].transpose(2, 1, 0)
    close(a[4][1], *row)
    close(c[1][2][1], one)
    close(a.sum(), total)


# how many parameters there are

TWO_BIASES = Cell.parse(  # a bias for W x and one for U h in every gate, as Keras and cuDNN count
    cells.gru.text.replace("+ b.r)", "+ b.r + b_U.r)").replace("+ b.z)", "+ b.z + b_U.z)")
)


def parameters_of(cell, inputs, hidden):
    shapes = cell.parameter_shapes(cell.bind(inputs, hidden))
    return sum(int(np.prod(shape)) for shape in shapes.values())


def dense(inputs, outputs):
    return (inputs + 1) * outputs


@pytest.mark.parametrize(
    ("cell", "inputs", "hidden", "number"),
    [
        (cells.lstm, 50, 128, 91_648),
        (cells.lstm, 128, 128, 131_584),
        (cells.lstm, 2, 128, 67_072),
        (cells.lstm, 64, 64, 33_024),
        (cells.gru_original, 196, 128, 124_800),
        (cells.gru_original, 128, 128, 98_688),
        (TWO_BIASES, 196, 128, 125_184),
        (TWO_BIASES, 128, 128, 99_072),
    ],
)
def test_parameter_counts(cell, inputs, hidden, number):
    assert parameters_of(cell, inputs, hidden) == number


def test_parameter_counts_of_whole_networks():
    def lstm(inputs, hidden):
        return parameters_of(cells.lstm, inputs, hidden)

    assert lstm(50, 128) + lstm(128, 128) + dense(128, 5) == 223_877  # Emojify
    assert lstm(90, 64) + dense(64, 90) == 45_530  # Jazz, 2021
    assert lstm(78, 64) + dense(64, 78) == 41_678  # Jazz, 2018
    both = Network.init(cells.lstm, 37, 32, bidirectional=True, rng=0).params[0]
    encoder = sum(array.size for direction in both for array in direction.values())
    assert encoder == 17_920
    attention = dense(128, 10) + dense(10, 1)
    assert encoder + attention + lstm(64, 64) + dense(64, 11) == 52_960  # dates, 2021
    assert 2 * lstm(37, 64) + dense(256, 1) + lstm(128, 128) + dense(128, 11) == 185_484  # 2018
    around = dense(101 * 15, 196) + 784 + 512 + 512 + dense(128, 1)  # trigger word
    for cell, total in ((cells.gru_original, 522_561), (TWO_BIASES, 523_329)):
        recurrent = parameters_of(cell, 196, 128) + parameters_of(cell, 128, 128)
        assert around + recurrent == total


# derivatives, by central differences

STATES = {"rnn": ["a"], "lstm": ["a", "c"], "gru": ["c"], "gru_simplified": ["c"]}


@pytest.mark.parametrize("name", SMALL)
def test_the_gradients_of_one_step(name):
    draw = Draws()
    states = STATES[name]
    arrays = {"xt": draw(2, 4), **{f"{state}_prev": draw(3, 4) for state in states}}
    arrays |= draw.all(SMALL[name])
    after = [draw(3, 4) for _ in states]
    forward = getattr(course, f"{name}_cell_forward")

    def run(arrays):
        before = [arrays[f"{state}_prev"] for state in states]
        return forward(arrays["xt"], *before, {key: arrays[key] for key in SMALL[name]})

    def loss(arrays):
        return sum(np.sum(new * d) for new, d in zip(run(arrays), after, strict=False))

    gradients = getattr(course, f"{name}_cell_backward")(*after, run(arrays)[-1])
    check_gradients(loss, arrays, {key[1:]: value for key, value in gradients.items()})


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("back", [2, 4])
def test_the_gradients_of_a_sequence_of_which_some_steps_come_back(name, back):
    draw = Draws()
    first = f"{STATES[name][0]}0"
    arrays = {"x": draw(2, 3, 4), first: draw(3, 3), **draw.all(SMALL[name])}
    da = draw(3, 3, back)
    forward = getattr(course, f"{name}_forward")

    def run(arrays):
        return forward(arrays["x"], arrays[first], {key: arrays[key] for key in SMALL[name]})

    def loss(arrays):
        return np.sum(run(arrays)[0][:, :, :back] * da)

    gradients = getattr(course, f"{name}_backward")(da, run(arrays)[-1])
    found = {key[1:]: value for key, value in gradients.items()}
    assert found["x"].shape == (2, 3, back)
    found["x"] = np.concatenate([found["x"], np.zeros((2, 3, 4 - back))], axis=2)
    check_gradients(loss, arrays, found)


# caches of a learner


def own_lstm_cache(xt, a_prev, c_prev, p):
    both = np.concatenate([a_prev, xt])
    ft, it, ot = (1 / (1 + np.exp(-p[f"W{k}"] @ both - p[f"b{k}"])) for k in "fio")
    cct = np.tanh(p["Wc"] @ both + p["bc"])
    c_next = ft * c_prev + it * cct
    return (ot * np.tanh(c_next), c_next, a_prev, c_prev, ft, it, cct, ot, xt, p)


def test_backward_takes_the_caches_of_anybodys_forward():
    draw = Draws()
    x, a0 = draw(N_X, M, 3), draw(*A1)
    parameters = draw.all(LSTM)
    own, a, c = [], a0, np.zeros(A1)
    for step in range(3):
        own.append(own_lstm_cache(x[:, :, step], a, c, parameters))
        a, c = own[-1][:2]
    da = draw(N_A, M, 3)
    *_, caches = course.lstm_forward(x, a0, parameters)
    ours = course.lstm_backward(da, caches)
    theirs = course.lstm_backward(da, (tuple(own), x))
    for key, gradient in ours.items():
        np.testing.assert_allclose(theirs[key], gradient, rtol=1e-10, atol=1e-12)


def test_backward_believes_the_caches():
    draw = Draws()
    xt, a_prev, c_prev = draw(*X1), draw(*A1), draw(*A1)
    *_, cache = course.lstm_cell_forward(xt, a_prev, c_prev, draw.all(LSTM))
    da, dc = draw(*A1), draw(*A1)
    changed = (cache[0], cache[1] / 2, *cache[2:4], cache[4] / 2, *cache[5:])
    c_next, ft, ot = changed[1], changed[4], changed[7]
    reaching = dc + da * ot * (1 - np.tanh(c_next) ** 2)
    gradients = course.lstm_cell_backward(da, dc, changed)
    np.testing.assert_allclose(gradients["dc_prev"], reaching * ft, rtol=1e-12)
    expected = np.sum(reaching * c_prev * ft * (1 - ft), axis=1, keepdims=True)
    np.testing.assert_allclose(gradients["dbf"], expected, rtol=1e-12)
    xt, a_prev = draw(*X1), draw(*A1)
    *_, cache = course.rnn_cell_forward(xt, a_prev, draw.all(RNN))
    gradients = course.rnn_cell_backward(da, (cache[0] / 2, *cache[1:]))
    expected = np.sum(da * (1 - (cache[0] / 2) ** 2), axis=1, keepdims=True)
    np.testing.assert_allclose(gradients["dba"], expected, rtol=1e-12)


# sentences


def good(name):
    draw = Draws()
    return draw(2, 3, 4), draw(3, 3), draw.all(SMALL[name])


def test_wrong_arguments_get_a_sentence():
    x, a0, p = good("rnn")
    without = {key: array for key, array in p.items() if key != "Waa"}
    with pytest.raises(InputError, match=r"need Waa, of shape \(n_a, n_a\); found Wax, ba, Wya"):
        course.rnn_forward(x, a0, without)
    with pytest.raises(InputError, match="need by"):
        course.rnn_forward(x, a0, {key: array for key, array in p.items() if key != "by"})
    with pytest.raises(InputError, match="dictionary of arrays by name; found a list"):
        course.rnn_forward(x, a0, [*p])
    with pytest.raises(
        InputError, match=r"Wax has shape \(3, 3\); expected \(n_a, n_x\) with n_a = 3, n_x = 2"
    ):
        course.rnn_forward(x, a0, {**p, "Wax": p["Waa"]})
    with pytest.raises(InputError, match=r"ba has shape \(3,\); expected \(n_a, 1\)"):
        course.rnn_forward(x, a0, {**p, "ba": np.zeros(3)})
    with pytest.raises(InputError, match=r"x has shape \(2, 3\); expected \(n_x, m, T_x\)"):
        course.rnn_forward(x[:, :, 0], a0, p)
    with pytest.raises(InputError, match=r"a0 has shape \(3, 2\); expected .* m = 3"):
        course.rnn_forward(x, a0[:, :2], p)
    with pytest.raises(InputError, match=r"xt has shape \(2, 3, 4\)"):
        course.rnn_cell_forward(x, a0, p)
    with pytest.raises(InputError, match="x is an array of real numbers; found a str"):
        course.rnn_forward("three", a0, p)
    with pytest.raises(InputError, match="a0 is an array of real numbers; found a list"):
        course.rnn_forward(x, [[1, 2], [3]], p)
    with pytest.raises(InputError, match="x has no steps"):
        course.rnn_forward(x[:, :, :0], a0, p)
    x, a0, p = good("lstm")
    with pytest.raises(InputError, match=r"Wf has shape \(3, 4\); expected \(n_a, n_a \+ n_x\)"):
        course.lstm_forward(x, a0, {**p, "Wf": p["Wf"][:, :4]})
    with pytest.raises(InputError, match=r"c_prev has shape \(2, 3\)"):
        course.lstm_cell_forward(x[:, :, 0], a0, a0[:2], p)


def test_wrong_caches_get_a_sentence():
    x, a0, p = good("rnn")
    *_, caches = course.rnn_forward(x, a0, p)
    *_, lstm_caches = course.lstm_forward(*good("lstm"))
    da = np.ones((3, 3, 4))
    with pytest.raises(
        InputError,
        match=r"rnn_cell_forward is \(a_next, a_prev, xt, parameters\), 4 entries; found 10 "
        "entries, as many as a cache of lstm_cell_forward has",
    ):
        course.rnn_backward(da, lstm_caches)
    with pytest.raises(InputError, match="found ndarray"):
        course.rnn_cell_backward(a0, a0)
    for wrong in (caches[0], caches[0][0], x, None, ({}, x)):
        with pytest.raises(InputError, match="caches are what rnn_forward gives last"):
            course.rnn_backward(da, wrong)
    with pytest.raises(InputError, match="da has 5 steps, and the caches hold 4"):
        course.rnn_backward(np.ones((3, 3, 5)), caches)
    with pytest.raises(InputError, match="da has 0 steps"):
        course.rnn_backward(da[:, :, :0], caches)
    with pytest.raises(InputError, match=r"^da has shape \(3, 2, 4\); .*m = 3"):
        course.rnn_backward(da[:, :2], caches)
    with pytest.raises(InputError, match=r"a_prev in a cache has shape \(3, 2\)"):
        course.rnn_cell_backward(a0, (a0, a0[:, :2], x[:, :, 0], p))
    with pytest.raises(InputError, match=r"^dc_next has shape \(3,\)"):
        course.lstm_cell_backward(a0, np.ones(3), lstm_caches[0][0])
