"""`lab.check` knows right from wrong, and knows a mistake by its numbers.

The learner of these tests (learner.py) writes plain NumPy; mistakes are typed into that text, apart
from how the package makes them.
"""

import functools
import re
import warnings

import numpy as np
import pytest
from learner import functions
from typed_mistakes import TYPED

from unrolled import InputError
from unrolled.lab import course
from unrolled.lab.checking import Report, check
from unrolled.lab.checking.draws import NAMES, task
from unrolled.lab.checking.mistakes import mistaken_answers


@functools.cache
def learner():
    return functions()


@pytest.mark.parametrize("name", NAMES)
def test_our_functions_and_a_learners_are_right(name):
    for function in (task(name).function, learner()[name]):
        report = check(function)
        assert report.right, report
        assert report
        assert report.mistake is None
        assert not report.remarks
        assert "✗" not in str(report)
        assert str(report).splitlines()[0] == f"{name}: right"


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [(name, old, new, says) for names, old, new, says in TYPED for name in names.split()],
)
def test_a_mistake_that_is_typed_in_is_named(name, old, new, says):
    report = check(functions((old, new))[name])
    assert not report.right
    assert report.findings, report
    assert report.findings[0].whole, report
    assert len(report.findings) == 1
    assert says in report.findings[0].text


def returning(name, answer):
    """A function that returns an answer whose arrays are given by the names of a report."""
    asked = task(name)

    def function(*given):
        if not asked.results:
            return dict(answer)
        if name == "sample":
            return list(answer["indices"].astype(int))
        if name == "optimize":
            for key in asked.arguments["parameters"]:
                given[3][key][:] = answer[f"parameters: {key}"]
            gradients = {
                f"d{key}": answer[f"gradients: d{key}"] for key in asked.arguments["parameters"]
            }
            return float(answer["loss"]), gradients, answer["a_last"]
        *names, kept = asked.results
        entries = [answer[f"{kept}: {entry}"] for entry in asked.course.cache]
        parameters = asked.arguments["parameters"]
        if kept == "cache":
            return (*(answer[name] for name in names), (*entries, parameters))
        steps = zip(*(np.moveaxis(entry, 2, 0) for entry in entries), strict=True)
        caches = [(*step, parameters) for step in steps]
        return (*(answer[name] for name in names), (caches, answer["caches: x"]))

    return function


# Mistakes that no draws could tell apart, because they come to the same.
SAME = {
    "lstm_backward": {
        "dc_prev is not carried to the step before",
        "dc_next is forgotten",
        "dc_prev has the share of dc_next only",
    },
    # With 100 units whose weights are near 1, one character has nearly all of the probability.
    "sample": {"by is forgotten", "the likeliest character is taken, none is drawn"},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_of_the_table_is_known_again(name):
    assert len(mistaken_answers(name)) >= 6
    for mistake, answer in mistaken_answers(name):
        report = check(returning(name, answer), of=name)
        assert not report.right
        (finding,) = report.findings
        assert finding.whole, mistake.name
        known = {finding.mistake.name, *(other.name for other in finding.also)}
        assert mistake.name in known
        assert known == {mistake.name} or known == SAME[name]
        assert mistake.equation
        for line in mistake.equation.splitlines():
            assert [line.count(sign) for sign in "[("] == [line.count(sign) for sign in "])"], line
            assert line in str(report) or finding.mistake is not mistake
        assert report.cell.count("\n") + 1 == max(1, len(finding.mistake.lines))
        assert (r"\begin{aligned}" in report.formula) == bool(finding.mistake.lines)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_mistakes_have_one_name(name):
    names = [mistake.name for mistake, _ in mistaken_answers(name)]
    assert len(names) == len({*names})


# Tables in circulation: numbers of mistakes, computed apart from this package.

RNN_STATE = (-0.93013738, 0.991315, -0.98694298, -0.99723276)
RNN_NOT_CARRIED = (-0.15028183, -0.34554547, 0.02071758, 0.01483317, -0.17268893, 4.08148573)
RNN_LAST_ONLY = (0.04036334, 0.01590669, 0.00395097, 0.01483317, 8.45242637)
SIGMOID = (0.88978316, 0.02620746, 0.08013124, 0.09478513, 0.64180858, 0.27232029, 0.30926225,
           0.90529271, 0.95200778, 0.24373739)  # fmt: skip
LSTM_2018 = (-0.0017331318249517, 0.08287441929148305, -0.30545663469528067, -0.43281115395362296)
STALE = (0.0842968653806773, 0.39308187392193045, 0.8051716648049104)


def made(name, clause):
    (answer,) = [answer for mistake, answer in mistaken_answers(name) if clause in mistake.name]
    return answer


def test_the_numbers_of_mistakes_that_others_have_seen():
    def close(found, expected):
        np.testing.assert_allclose(np.ravel(found), expected, rtol=0, atol=6e-9)

    ignored = made("rnn_forward", "a0 is ignored")
    close(ignored["a"][4][1], RNN_STATE)
    close(ignored["y_pred"][1][3], (0.0440187, 0.41032346, 0.01401205, 0.42558194))
    close(made("rnn_cell_forward", "a sigmoid stands for the softmax")["yt_pred"][1], SIGMOID)
    carried = made("rnn_backward", "is not carried")
    close([*carried["dx"][1][2], carried["da0"][2][3], carried["dWax"][3][1]], RNN_NOT_CARRIED)
    last = made("rnn_backward", "at the last step only")
    close([*last["dx"][1][2], last["dWax"][3][1]], RNN_LAST_ONLY)
    neither = made("lstm_backward", "neither da_prev nor dc_prev")
    close(neither["dx"][1][2], LSTM_2018)
    close(neither["da0"][2][3], -0.09591150195400468)
    (only_a,) = [a for m, a in mistaken_answers("lstm_backward") if m.name.startswith("dc_prev is")]
    close(only_a["da0"][2][3], 0.01258211501225)
    only_c = made("lstm_backward", "da_prev is not carried")
    close(only_c["da0"][2][3], -0.01828646150056)
    stale = made("rnn_cell_backward", "ba is left over")
    close([stale["da_prev"][2][3], stale["dWax"][3][1], stale["dba"][4][0]], STALE)


# what only some arrays show


def changed(name, **changes):
    """The learner's function with some results changed: name → what becomes of the array."""

    def function(*given):
        found = learner()[name](*given)
        return {
            key: changes[key](array) if key in changes else array for key, array in found.items()
        }

    return function


def test_a_mistake_that_explains_some_arrays_is_told_with_them():
    right = learner()["lstm_cell_backward"]

    def swapped(da_next, dc_next, cache):
        found = right(da_next, dc_next, cache)
        return {**found, "dWi": found["dWo"], "dWo": found["dWi"], "dbf": found["dbf"] / 10}

    report = check(swapped, of="lstm_cell_backward")
    texts = [finding.text for finding in report.findings]
    assert texts[0].startswith("in dWi, dWo only: the gradients of Wi and Wo")
    assert "in dbf only: dbf, dbi, dbc, dbo: means over the examples, not sums" in texts[1]
    assert len(texts) == 2
    assert {v.name for v in report.verdicts if not v.right} == {"dWi", "dWo", "dbf"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (np.negative, "every entry has the wrong sign"),
        (np.zeros_like, "nothing is written"),
        (lambda array: 2 * array, "every entry is doubled"),
        (lambda array: array / 2, "every entry is halved"),
        (lambda array: array * 10, "a sum over the examples"),
        (lambda array: array / 4, "a mean over the steps"),
    ],
)
def test_what_can_happen_to_any_array_is_told(change, says):
    report = check(changed("rnn_cell_backward", dba=change), of="rnn_cell_backward")
    (finding,) = report.findings
    assert says in finding.text
    assert finding.arrays == ("dba",)


def test_unrelated_numbers_get_an_honest_answer():
    random = np.random.default_rng(0)

    def noise(*given):
        found = learner()["lstm_backward"](*given)
        return {key: random.standard_normal(array.shape) for key, array in found.items()}

    report = check(noise, of="lstm_backward")
    assert not report.right
    assert report.mistake is None
    assert report.formula == report.cell == ""
    assert "no known one gives these numbers" in str(report)


# what is no number, or has another shape


def text_of(function, of):
    report = check(function, of=of)
    assert not report.right
    for shown in (report._repr_html_(), report._repr_markdown_()):
        assert shown
    return str(report)


def test_shapes_come_first():
    found = changed(
        "rnn_cell_backward", dWax=np.transpose, dba=lambda array: array[:, 0],
        dxt=lambda array: array[:2], dWaa=lambda array: array.astype(complex),
    )  # fmt: skip
    text = text_of(found, "rnn_cell_backward")
    assert "has shape (3, 5); expected (5, 3): it is transposed, and its numbers are right" in text
    assert "has shape (5,); expected (5, 1): an axis of length 1 is missing (keepdims=True)" in text
    assert "has shape (2, 10); expected (3, 10)" in text
    assert "holds complex numbers" in text
    assert "  ✓  da_prev  (5, 10)" in text


def test_what_holds_no_numbers():
    function = changed(
        "rnn_cell_backward",
        dxt=lambda array: None,
        da_prev=lambda array: "zero",
        dWax=lambda array: np.where(array > 0.3, np.nan, array),
        dba=lambda array: [[1], [2, 3]],
        dWaa=lambda array: array / 0,
    )
    text = text_of(function, "rnn_cell_backward")
    assert "is no array of numbers: it is None" in text
    assert "is no array of numbers: it is a str" in text
    assert "is no array of numbers: it is a list of 2" in text
    assert re.search(r"dWax .*holds NaN: \d of 15 entries; first dWax\[\d,\d\]", text)
    assert "holds infinity: 25 of 25 entries; first dWaa[1,1]" in text
    assert "Remark: It warned: divide by zero encountered in divide." in text


def test_missing_and_unknown_keys():
    def renamed(da_next, cache):
        found = learner()["rnn_cell_backward"](da_next, cache)
        found["dx"] = found.pop("dxt")
        del found["dba"]
        return found

    text = text_of(renamed, "rnn_cell_backward")
    assert re.search(r"✗  dxt +\(3, 10\) +is missing; found is dx", text)
    assert re.search(r"✗  dba +\(5, 1\) +is missing$", text, re.M)
    assert "Not looked at: dx." in text


@pytest.mark.parametrize(
    ("of", "function", "says"),
    [
        ("rnn_backward", lambda da, caches: None, "returned None; expected a dictionary"),
        ("rnn_backward", lambda da, caches: (1, 2), "returned a tuple of 2; expected a dictionary"),
        ("rnn_forward", lambda x, a0, p: x, "returned one array of shape (3, 10, 4); expected 3"),
        ("rnn_forward", lambda x, a0, p: 1.0, "returned a float; expected 3 values: a, y_pred, ca"),
        ("rnn_forward", lambda x, a0, p: (x, x), "It returned 2 values; expected are 3"),
        ("rnn_forward", lambda x, a0, p: (x, x, None), "found None; expected (list of each step's"),
        ("rnn_forward", lambda x, a0, p: (x, x, ([], x)), "the list holds 0; expected 4 caches"),
        ("rnn_forward", lambda x, a0, p: (x, x, (7, x)), "the list holds an int; expected 4"),
        ("rnn_forward", lambda x, a0, p: (x, x, ([(x,)] * 4, x)), "a step keeps 1 entries"),
        ("rnn_cell_forward", lambda x, a, p: (a, a, 1), "a step keeps an int; expected 4: (a_next"),
        ("rnn_cell_forward", lambda x, a, p: (a, a, (a, a, x, x)), "the last entry is one array"),
        ("rnn_forward", lambda x, a0: x, "It is called as <lambda>(x, a0, parameters); found"),
        ("clip", lambda gradients, maxValue: 1, "returned an int; expected a dictionary"),
        ("sample", lambda p, c, seed: None, "is no array of numbers: it is None"),
        ("sample", lambda p, c, seed: [1, 2], "has 2 entries; expected 22"),
        ("optimize", lambda X, Y, a, p, rate: (0, None, a), "is None; expected a dictionary"),
        ("rnn_forward", lambda x, a0, p: p["Wa"], "<lambda> raised KeyError: 'Wa'"),
        ("rnn_forward", lambda x, a0, p: 1 / 0, "raised ZeroDivisionError: division by zero"),
        ("lstm_backward", lambda da, caches: caches[0][9], "only the first 4 caches count"),
    ],
)
def test_whatever_a_function_does_gets_a_sentence(of, function, says):
    assert says in text_of(function, of)


def my_rnn_forward(x, a0, parameters):
    zero = x - x
    return np.linalg.inv(zero[:, :3, 0])


def test_an_error_is_told_with_its_line():
    text = str(check(my_rnn_forward))
    assert text.startswith("my_rnn_forward, checked as rnn_forward: nothing to compare")
    assert "raised LinAlgError: Singular matrix" in text
    assert "in my_rnn_forward, line" in text
    assert "return np.linalg.inv(zero[:, :3, 0])" in text


def test_inputs_are_copies_and_a_change_in_place_is_noticed():
    def greedy(da_next, cache):
        found = learner()["rnn_cell_backward"](da_next, cache)
        da_next *= 0
        cache[3]["Waa"][:] = 0
        return found

    for _ in range(2):
        report = check(greedy, of="rnn_cell_backward")
        assert report.right
        assert report.remarks == (
            "It changed da_next, cache in place: whoever gave it may need it as it was.",
        )
    assert check(course.rnn_cell_backward).right


def test_the_global_generator_and_warnings_are_left_as_they_were():
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    filters = warnings.filters[:]
    assert check(learner()["sample"]).right
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert warnings.filters == filters


# which function is meant


def test_the_name_tells_which_function_is_meant():
    own = learner()["gru_simplified_cell_backward"]

    def my_gru_simplified_cell_backward(dc_next, cache):
        return own(dc_next, cache)

    report = check(my_gru_simplified_cell_backward)
    assert report.right
    assert report.of == "gru_simplified_cell_backward"
    assert report.name == "my_gru_simplified_cell_backward"
    assert check(functools.partial(own), of="gru_simplified_cell_backward").name == "partial"


def test_a_question_without_an_answer():
    with pytest.raises(InputError, match="the name '<lambda>' ends in none of the functions that"):
        check(lambda x: x)
    with pytest.raises(InputError, match=r"of='lstm_bakward' is none of .*Did you mean of='lstm_b"):
        check(course.lstm_backward, of="lstm_bakward")
    with pytest.raises(InputError, match=r"takes a function of yours.*found an int"):
        check(3)
    with pytest.raises(InputError, match=r"'deep_forward' ends in none .*check knows: rnn_cell"):
        check(course.deep_forward)  # the course has no draws for it


# how it looks


def test_the_report_reads_well():
    old, new = "(1 - a_next**2)", "(1 - a_prev**2)"
    function = functions((old, new))["rnn_cell_backward"]
    function.__name__ = "my_solution"
    report = check(function, of="rnn_cell_backward")
    lines = str(report).splitlines()
    assert lines[0] == "my_solution, checked as rnn_cell_backward: wrong, 0 of 5 arrays right"
    assert re.fullmatch(
        r"  ✗  dxt      \(3, 10\)  dxt\[\d,\d+\]: found \S+, expected \S+", lines[2]
    )
    assert lines[-3:] == [
        "The mistake: the derivative is taken at a_prev, not at a_next.",
        "Look at:     dz = (1 − a_next²) ∗ da_next",
        "In the cell: dh_pre = dh * (1 - h * h)",
    ]
    assert repr(report) == str(report)
    html, markdown = report._repr_html_(), report._repr_markdown_()
    assert html.count("<tr>") == 5
    assert "taken at a_prev" in html
    assert "$$" in markdown
    assert report.formula in markdown
    assert markdown.count("| ✗ |") == 5


def test_the_worst_entry_counts_from_one_and_steps_stand_in_brackets():
    def off(da, caches):
        found = learner()["rnn_backward"](da, caches)
        found["dx"][1, 2, 3] += 0.5
        found["dWax"][3, 1] += 0.5
        return found

    dx, _, dWax, *_ = check(off, of="rnn_backward").verdicts
    assert dx.worst == "dx[2,3]<4>"
    assert dx.found == pytest.approx(dx.expected + 0.5)
    assert dx.expected == pytest.approx(0.01483316637574825)
    assert dx.text == "dx[2,3]<4>: found 0.51483317, expected 0.01483317"
    assert dWax.worst == "dWax[4,2]"


def test_numbers_that_differ_late_are_told_apart():
    def nearly(xt, a_prev, parameters):
        a, y, cache = learner()["rnn_cell_forward"](xt, a_prev, parameters)
        return a, y * (1 + 2e-5), cache

    verdict = check(nearly, of="rnn_cell_forward").verdicts[1]
    found, expected = re.findall(r"0\.\d+", verdict.text)
    assert found != expected


def test_html_is_escaped():
    assert "<lambda>" not in check(lambda x, a0, p: 1, of="rnn_forward")._repr_html_()


def test_a_report_is_a_value():
    report = check(course.rnn_forward)
    assert isinstance(report, Report)
    with pytest.raises(AttributeError):
        report.name = "other"
