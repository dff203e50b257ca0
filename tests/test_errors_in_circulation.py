"""What is printed fails, what is right holds: each error of docs/errors_in_circulation.md."""

import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from course_draws import Draws, slope

from unrolled import Cell, EquationError, InputError, cells, layer_norm, recurrent_dropout
from unrolled.lab import course, gradient_check
from unrolled.lab.checking.draws import task
from unrolled.lab.checking.mistakes import mistaken_answers
from unrolled.lab.course import layout
from unrolled.lab.course.arrays import Sizes

PAGE = Path(__file__).parent.parent / "docs" / "errors_in_circulation.md"
OPEN = 100.0  # a bias with which a sigmoid is 1, to the last digit


def close(found, *expected):
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-10, atol=1e-13)


def reads(text, *numbers):
    """Numbers, rounded, are those of the text, which the page has too."""
    assert " ".join(f"{number:.4f}" for number in np.ravel(numbers)) == text


def changed(cell, old, new):
    """A cell with another text in its equations."""
    assert cell.text.count(old) == 1
    return Cell.parse(cell.text.replace(old, new))


def blocks(course_cell, parameters):
    """The catalogue's parameters, given the course's for n_x = 3 and n_a = 5."""
    sizes = Sizes()
    sizes.array("[x, a]", np.zeros((3, 5)), "n_x", "n_a")
    return course_cell.blocks(parameters, sizes)


def outputs(cell, params, x, *states):
    """The output of a cell at every step, in the course's layout (n_a, m, T_x)."""
    return cell.run(x.transpose(2, 1, 0), params, [state.T for state in states])[0].T


def made(name, mistake):
    """What a function answers with the known mistake whose name has these words."""
    (answer,) = [answer for known, answer in mistaken_answers(name) if mistake in known.name]
    return answer


X, C0, GRU = task("gru_forward").arguments.values()
BEFORE = blocks(layout.GRU, GRU)  # for the catalogue's gru_original, and for its gru, whose
AFTER = BEFORE | {"b_U.n": np.zeros(5)}  # reset then leaves the candidate's bias outside


def test_the_gru_interpolates():
    printed = changed(cells.gru_original, "+ z * h_prev", "+ z + h_prev")
    right, wrong = course.gru_forward(X, C0, GRU)[0], outputs(printed, BEFORE, X, C0)
    np.testing.assert_allclose(wrong, made("gru_forward", "a plus stands for")["c"], rtol=1e-10)
    reads("0.8258 -0.1205", right[4, 1, 0], wrong[4, 1, 0])
    # A gate that lets nothing in: the state stays, and does not count the steps.
    shut = BEFORE | {"b.z": np.full(5, OPEN)}
    close(outputs(cells.gru_original, shut, X, C0)[:, :, 3] - C0, *np.zeros(50))
    close(outputs(printed, shut, X, C0)[:, :, 3] - C0, *np.full(50, 4))


def test_a_state_is_made_of_the_state_before():
    with pytest.raises(EquationError, match=r"round in a circle: h needs h\..* write h_prev"):
        changed(cells.simple, "U.h @ h_prev", "U.h @ h")
    xt, a_prev, p = task("rnn_cell_forward").arguments.values()
    a_next = course.rnn_cell_forward(xt, a_prev, p)[0]
    right, wrong = (np.tanh(p["Waa"] @ a + p["Wax"] @ xt + p["ba"]) for a in (a_prev, a_next))
    np.testing.assert_allclose(a_next, right, rtol=1e-12)
    reads("0.5958 -0.9955", a_next[4, 0], wrong[4, 0])


def test_z_keeps_and_gamma_u_replaces():
    for name, params in (("gru", AFTER), ("gru_original", BEFORE), ("gru_simplified", BEFORE)):
        cell = getattr(cells, name)
        params = {block: array for block, array in params.items() if block in cell.sizes.shapes}
        kept = outputs(cell, params | {"b.z": np.full(5, OPEN)}, X, C0)
        np.testing.assert_array_equal(kept, np.stack([C0] * 4, axis=2))
    for forward in (course.gru_forward, course.gru_simplified_forward):
        for c, *_, candidate, _, _ in forward(X, C0, GRU | {"bu": np.full((5, 1), OPEN)})[2][0]:
            np.testing.assert_allclose(c, candidate, rtol=1e-12)
    # So weights change their sign from one to the other; `blocks` has done it.
    theirs = BEFORE | {f"{family}.z": -BEFORE[f"{family}.z"] for family in "WUb"}
    np.testing.assert_array_equal(theirs["b.z"], GRU["bu"][:, 0])
    right, wrong = (outputs(cells.gru_original, params, X, C0) for params in (BEFORE, theirs))
    np.testing.assert_allclose(right, course.gru_forward(X, C0, GRU)[0], rtol=1e-10)
    reads("0.8258 -0.9495", right[4, 1, 0], wrong[4, 1, 0])


def test_the_reset_before_and_after_are_two_functions():
    close(outputs(cells.gru_original, BEFORE, X, C0)[4, 1, 0], 0.8258077023193531)
    close(outputs(cells.gru, AFTER, X, C0)[4, 1, 0], 0.4223384653418985)
    # They agree where the matrix does not mix the units: then r may go through it.
    alone = {"U.n": np.diag(np.diag(BEFORE["U.n"]))}
    one = outputs(cells.gru_original, BEFORE | alone, X, C0)
    np.testing.assert_allclose(outputs(cells.gru, AFTER | alone, X, C0), one, rtol=1e-10)


def test_torch_keeps_and_resets_after():
    torch = pytest.importorskip("torch")
    peer = torch.nn.GRU(3, 5, dtype=torch.float64)
    stacked = [np.concatenate([AFTER[f"{f}.{gate}"] for gate in "rzn"]) for f in "WUb"]
    with torch.no_grad():
        for weights, array in zip(peer.parameters(), [*stacked, np.zeros(15)], strict=True):
            weights.copy_(torch.from_numpy(array))
        y, _ = peer(torch.from_numpy(X.T.copy()), torch.from_numpy(C0.T[None].copy()))
    np.testing.assert_allclose(y.numpy().T, outputs(cells.gru, AFTER, X, C0), rtol=1e-10)


def check_table(right, wrong, parameters, da, forward):
    """Of each parameter, the gradient that the course's table shows, by a central difference."""
    for key in [key for key in right if key[1:] in parameters]:
        place = {"dWi": (1, 2), "dWo": (1, 2), "dWaa": (1, 2)}.get(key, (3, 1))
        place = (4, 0) if key[1] == "b" else place
        difference = slope(lambda p: (da * forward(p)).sum(), parameters, key[1:], place)
        assert right[key][place] == pytest.approx(difference, rel=1e-6)
        assert wrong[key][place] != pytest.approx(difference, rel=0.01)


def test_lstm_backward_carries_both_gradients_back():
    da, caches = task("lstm_backward").arguments.values()
    (_, _, a0, *_, parameters), x = caches[0][0], caches[1]
    right = course.lstm_backward(da, caches)
    wrong = made("lstm_backward", "neither da_prev nor dc_prev")
    forward = partial(course.lstm_forward, x, a0)
    check_table(right, wrong, parameters, da, lambda arrays: forward(arrays)[0][:, :, :4])
    close([right["dWi"][1, 2], wrong["dWi"][1, 2]], 0.4051243309298183, 0.10237182024854771)
    close([right["da0"][2, 3], wrong["da0"][2, 3]], 0.3127703102572602, -0.09591150195400468)
    # At the last step nothing comes back yet, so there the table is right.
    close([right["dx"][1, 2, 3], wrong["dx"][1, 2, 3]], *[-0.43281115395362296] * 2)
    # Three of its numbers come from no known mistake at all.
    answers = [right, *(answer for _, answer in mistaken_answers("lstm_backward"))]
    for key, number in (("dbi", -0.06997391), ("dbc", -0.27441821), ("dbo", 0.16532821)):
        assert not any(abs(answer[key][4, 0] - number) < 1e-6 for answer in answers)


def test_rnn_cell_backward_with_its_own_bias():
    da_next, cache = task("rnn_cell_backward").arguments.values()
    _, a_prev, xt, parameters = cache
    right = course.rnn_cell_backward(da_next, cache)
    wrong = made("rnn_cell_backward", "ba is left over")
    forward = partial(course.rnn_cell_forward, xt, a_prev)
    check_table(right, wrong, parameters, da_next, lambda arrays: forward(arrays)[0])
    close([right["dWaa"][1, 2], wrong["dWaa"][1, 2]], 1.1503450668497135, -0.28483955786960674)
    close([right["dba"][4], wrong["dba"][4]], 0.2002349138798538, 0.8051716648049104)


def gate_gradients(da, dc_next, cache, printed):
    """The lab's equations 7 to 10 (with c_prev for c̃_prev), summed up to the biases' gradients."""
    _, c_next, _, c_prev, ft, it, cct, ot, *_ = cache
    through_a = ot * (1 - np.tanh(c_next) ** 2) * da
    outside, inside = (dc_next, through_a) if printed else (0, dc_next + through_a)
    slope_of_cct = cct * (1 - np.tanh(cct) ** 2) if printed else 1 - cct**2
    gates = {
        "bo": da * np.tanh(c_next) * ot * (1 - ot),
        "bc": outside * it + inside * it * slope_of_cct,
        "bi": outside * cct + inside * cct * it * (1 - it),
        "bf": outside * c_prev + inside * c_prev * ft * (1 - ft),
    }
    return {key: gate.sum(axis=1, keepdims=True) for key, gate in gates.items()}


def test_the_parentheses_of_the_gates_gradients():
    da, dc, cache = task("lstm_cell_backward").arguments.values()
    _, _, a_prev, c_prev, *_, xt, parameters = cache
    biases = {key: parameters[key] for key in ("bc", "bi", "bf", "bo")}

    def states(**given):
        return np.stack(course.lstm_cell_forward(xt, a_prev, c_prev, parameters | given)[:2])

    gradient_check(states, lambda dy, **_: gate_gradients(*dy, cache, False), biases).check()
    found = gradient_check(states, lambda dy, **_: gate_gradients(*dy, cache, True), biases)
    assert {array.name for array in found.arrays if array.error > 0.01} == {"dbc", "dbi", "dbf"}
    wrong, right = gate_gradients(da, dc, cache, True), course.lstm_cell_backward(da, dc, cache)
    reads("0.1886 -2.0942", right["dbf"][4], wrong["bf"][4])
    # Where no dc_next comes, as at the last step, two of the three happen to be right.
    none = np.zeros_like(dc)
    wrong, right = gate_gradients(da, none, cache, True), course.lstm_cell_backward(da, none, cache)
    same = [np.allclose(wrong[key], right[f"d{key}"], rtol=1e-10) for key in ("bi", "bf", "bc")]
    assert same == [True, True, False]


def test_products_of_probabilities_underflow():
    zeros = {key: 0 * array for key, array in task("optimize").arguments["parameters"].items()}
    loss, _, _ = course.optimize([1] * 300, [1] * 300, np.zeros((100, 1)), zeros)
    assert np.prod(np.full(300, 1 / 27)) == 0.0
    reads("988.7511 988.7511", loss, 300 * np.log(27))


REFERENCE = ["the", "cat", "is", "on", "the", "mat"]


def precision(candidate, n):
    """The modified n-gram precision of Papineni et al. 2002, with one reference."""
    both = candidate, REFERENCE
    found, known = (Counter(zip(*(of[k:] for k in range(n)), strict=False)) for of in both)
    return (found & known).total() / found.total()


def brevity(candidate, reference):
    """The penalty of Papineni et al. 2002, of two lengths."""
    return 1.0 if candidate > reference else np.exp(1 - reference / candidate)


def bleu(candidate):
    """The score, and what is often printed."""
    p = [precision(candidate, n) for n in (1, 2, 3, 4)]
    mean = np.prod(p) ** (1 / 4)  # exp(¼ Σ log p), which is 0 where a p is
    return brevity(len(candidate), len(REFERENCE)) * mean, np.exp(np.mean(p))


def test_the_brevity_penalty_punishes_brevity():
    assert all(precision(REFERENCE[:4], n) == 1 for n in (1, 2, 3, 4))
    reads("0.6065 1.3956", brevity(4, 6), np.exp(1 - 4 / 6))
    right = [brevity(length, 6) for length in range(1, 7)]
    printed = [np.exp(1 - length / 6) for length in range(1, 7)]
    assert (right, printed) == (sorted(right), sorted(printed, reverse=True))
    assert right[-1] == printed[-1] == brevity(9, 6) == 1


def test_bleu_is_a_geometric_mean():
    assert precision(["the"] * 7, 1) == 2 / 7  # the paper's own example
    reads("1.0000 2.7183", *bleu(REFERENCE))
    reads("0.7598 2.1436", *bleu([*REFERENCE[:5], "rug"]))
    reads("0.0000 1.0000", *bleu(["some", "other", "words", "stand", "here"]))


def test_equalised_words_have_length_one():
    words, axis, neutral = np.array([[0.6, 0.8], [-0.8, 0.6]]), np.array([1, 2]), np.array([2, -1])
    along = (words @ axis)[:, None] / (axis @ axis) * axis
    moved, across = along - along.mean(0), (words - along).mean(0)
    printed = words - across - along.mean(0)
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (moved, printed)]
    right, entrywise, too_long = (
        across + np.sqrt(1 - across @ across) * moved / denominator
        for denominator in (lengths[0], np.abs(printed), lengths[1])
    )
    close(np.linalg.norm(right, axis=1), 1, 1)
    close(right @ neutral, *[across @ neutral] * 2)  # as near to the one as to the other
    reads("3.4778 3.1719", np.linalg.norm(entrywise, axis=1))
    reads("-3.7247 1.9247", entrywise @ neutral)
    reads("0.6584 0.6584", np.linalg.norm(too_long, axis=1))


def test_the_update_gate_of_the_lstm_is_its_input_gate():
    xt, a_prev, c_prev, p = task("lstm_cell_forward").arguments.values()
    *_, (*_, ft, it, cct, _, _, _) = course.lstm_cell_forward(xt, a_prev, c_prev, p)
    gate = 1 / (1 + np.exp(-(p["Wi"] @ np.vstack([a_prev, xt]) + p["bi"])))
    np.testing.assert_allclose(it, gate, rtol=1e-12)
    # It takes nothing away, unlike the GRU's gate of that name: wide open, the old state stays.
    wide_open = course.lstm_cell_forward(xt, a_prev, c_prev, p | {"bi": np.full((5, 1), OPEN)})[1]
    np.testing.assert_allclose(wide_open, ft * c_prev + cct, rtol=1e-12)
    as_in_prose = {key.replace("Wi", "Wu").replace("bi", "bu"): p[key] for key in p}
    with pytest.raises(InputError, match=r"need Wi.*found .*Wu"):
        course.lstm_cell_forward(xt, a_prev, c_prev, as_in_prose)


def test_losses_are_summed_from_the_first_step():
    characters, targets, a, parameters, _ = task("optimize").arguments.values()
    parameters = {key: array.copy() for key, array in parameters.items()}
    whole, _, _ = course.optimize(characters, targets, a, parameters, 0.0)
    steps = []
    for step in zip(characters, targets, strict=True):
        loss, _, a = course.optimize(*([one] for one in step), a, parameters, 0.0)
        steps.append(loss)
    assert whole == pytest.approx(sum(steps), rel=1e-12)
    # A term without the index of its sum is one and the same step, T times.
    assert not np.isclose(6 * np.array(steps), whole, rtol=0.01).any()
    reads("126.5040 46.9606 226.9160", whole, 6 * min(steps), 6 * max(steps))


def test_two_lstms_are_called_coupled():
    draw = Draws()
    x, a0, c0 = draw(3, 10, 4), draw(5, 10), draw(5, 10)
    drawn = {f"{kind}{gate}": draw(5, 8 if kind == "W" else 1) for gate in "fioc" for kind in "Wb"}
    params = blocks(layout.LSTM, drawn)
    by_input = changed(cells.lstm, "f = sigmoid(W.f @ x + U.f @ h_prev + b.f)", "f = 1 - i")
    of_f = {name: array for name, array in params.items() if name[-1] != "i"}
    of_i = {name: array for name, array in params.items() if name[-1] != "f"}
    right = outputs(cells.coupled_lstm, of_f, x, a0, c0)
    close(right[4, 1, 0], -0.2513490420687215)
    close(outputs(by_input, of_i, x, a0, c0)[4, 1, 0], -0.27752117558313527)
    # Each is the other with the weights of its gate negated: 1 − σ(a) = σ(−a).
    turned = of_i | {f"{family}.i": -params[f"{family}.f"] for family in "WUb"}
    np.testing.assert_allclose(outputs(by_input, turned, x, a0, c0), right, rtol=1e-10)


def test_layer_normalisation_has_three_places():
    def normalised(a):
        return (a - a.mean()) / a.std()

    def step(Wx, Uh, c, together, cell):
        gates = normalised(Wx + Uh) if together else normalised(Wx) + normalised(Uh)
        i, f, o = 1 / (1 + np.exp(-gates[:12].reshape(3, 4)))
        c = f * c + i * np.tanh(gates[12:])
        return o * np.tanh(normalised(c) if cell else c)

    Wx, Uh, c = map(np.random.default_rng(0).standard_normal, (16, 16, 4))
    found = {way: step(Wx, Uh, c, *way) for way in np.ndindex(2, 2)}
    for way, h in found.items():
        assert all(np.abs(h - other).max() > 0.01 for it, other in found.items() if it != way)
        # How large W is does not matter where W x is normalised apart, and does on the sum.
        assert np.allclose(step(10 * Wx, Uh, c, *way), h, rtol=1e-10) == (not way[0])
    for cell, indifferent in ((layer_norm(cells.lstm, 1e-12), True), (cells.lstm, False)):
        params = cell.init(3, 4, np.random.default_rng(0))
        tenfold = {name: array * (10 if name[0] == "W" else 1) for name, array in params.items()}
        x = np.random.default_rng(1).standard_normal((5, 1, 3))
        h, other = (cell.run(x, given)[0] for given in (params, tenfold))
        assert np.allclose(h, other, rtol=1e-6) == indifferent


def test_recurrent_dropout_leaves_what_is_carried():
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((10, 1, 3)), rng.uniform(0.5, 1, (1, 4))
    mask = np.array([2.0, 0.0, 2.0, 0.0])  # half of the units, and the others doubled

    def carried(cell, params):
        h = h0
        for x_t in x:
            _, h = cell.run(x_t[None], params, h * mask)
        return h

    def operand(cell, params):
        masked = {name: array * mask for name, array in params.items() if name[:2] == "U."}
        return cell.run(x, params | masked, h0)[1]

    keeping = cells.gru.init(3, 4, rng) | {"b.z": np.full(4, OPEN)}
    np.testing.assert_array_equal(operand(cells.gru, keeping), h0)
    np.testing.assert_array_equal(carried(cells.gru, keeping), h0 * [1024, 0, 1024, 0])
    *_, r, z, n, h, _ = recurrent_dropout(cells.gru, 0.5).text.strip().splitlines()
    assert all("@ (m_h * h_prev)" in line for line in (r, z, n))
    assert h.strip() == "h = (1 - z) * n + z * h_prev"
    # A simple network reads its state in the product only: there the two are one.
    simple = cells.simple.init(3, 4, rng)
    np.testing.assert_allclose(operand(cells.simple, simple), carried(cells.simple, simple))


def test_the_page_and_these_tests_name_each_other():
    text, source = (path.read_text(encoding="utf-8") for path in (PAGE, Path(__file__)))
    named = {re.search(r"test_the_page\w+", text)[0]}
    for section in text.split("\n### ")[1:]:
        links = re.findall(r"\[`(test_\w+)`\]\(\.\./tests/test_errors_in_circ\w+\.py\)", section)
        assert links, section
        assert all(f"**{word}:**" in section for word in ("Printed", "Right", "Seen")), section
        named |= {*links}
    assert named == {name for name in globals() if name.startswith("test_")}
    asserted = {f"{float(number):.4f}" for number in re.findall(r"\d+\.\d{4,}", source)}
    assert {*re.findall(r"\d+\.\d{3,}", text)} <= asserted
