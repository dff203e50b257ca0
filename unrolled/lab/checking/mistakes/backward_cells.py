"""Known mistakes on the way back that are those of one cell."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from ....backends.steps import Array
from ...course.layout import GRU, GRU_SIMPLIFIED, LSTM, RNN, CourseCell
from ..draws import task
from ..steps import Answer, Backward, Forward
from .changes import (
    Made,
    Mistake,
    asked,
    equations,
    in_the_place_of,
    kept,
    parameters,
    squashed,
    told,
    without,
)

# What a gate's own derivative multiplies, in the course's words, by our names.
DERIVATIVES: Mapping[str, Mapping[str, str]] = {
    "rnn": {"h": "dz = (1 − a_next²) ∗ da_next"},
    "lstm": {
        "f": "dΓf = dc ∗ c_prev ∗ Γf ∗ (1 − Γf)",
        "i": "dΓi = dc ∗ c̃ ∗ Γi ∗ (1 − Γi)",
        "g": "dc̃ = dc ∗ Γi ∗ (1 − c̃²)",
        "o": "dΓo = da_next ∗ tanh(c_next) ∗ Γo ∗ (1 − Γo)",
    },
    "gru": {
        "z": "dΓu = dc_next ∗ (c̃ − c_prev) ∗ Γu ∗ (1 − Γu)",
        "r": "dΓr = (Wccᵀ dc̃) ∗ c_prev ∗ Γr ∗ (1 − Γr)",
        "n": "dc̃ = dc_next ∗ Γu ∗ (1 − c̃²)",
    },
    "gru_simplified": {
        "z": "dΓu = dc_next ∗ (c̃ − c_prev) ∗ Γu ∗ (1 − Γu)",
        "n": "dc̃ = dc_next ∗ Γu ∗ (1 − c̃²)",
    },
}
_DC = "dc = dc_next + Γo ∗ (1 − tanh²(c_next)) ∗ da_next, and each gate from it"


def of_cell(course: CourseCell) -> list[Mistake]:
    """The mistakes of one step back of one cell."""
    own = {RNN: _rnn, LSTM: _lstm, GRU: _gru, GRU_SIMPLIFIED: _updates}
    return own[course]()


def _rnn() -> list[Mistake]:
    derivative = DERIVATIVES["rnn"]["h"]
    return [
        Mistake(
            "1 − a_next stands for 1 − a_next²",
            derivative,
            asked(gradients=lambda question: (_over(question, 1 + question.cache["a_next"]),)),
            ("dh_pre",),
        ),
        Mistake(
            "the tanh is applied again: 1 − tanh²(a_next)",
            f"{derivative}\na_next is the tanh already",
            kept(lambda cache: {"a_next": np.tanh(cache["a_next"])}),
            ("dh_pre",),
        ),
        Mistake(
            "the derivative is taken at a_prev, not at a_next",
            derivative,
            kept(lambda cache: {"a_next": cache["a_prev"]}),
            ("dh_pre",),
        ),
        Mistake(
            "a_next stands for a_prev in dWaa",
            "dWaa = dz a_prevᵀ",
            told(lambda question, answer: {"dWaa": _read_after(question, "a")["dWaa"]}),
        ),
        Mistake(
            "ba is left over from another test, as in the lab's table of 2018",
            "a_next = tanh(Waa a_prev + Wax xt + ba), with the ba that was drawn",
            kept(_of_a_stale_bias),
            ("dh_pre",),
        ),
    ]


def _over(question: Backward, divisor: Array) -> Array:
    return question.gradients[0] / divisor


def _read_after(question: Backward, state: str) -> Answer:
    """The answer if the step had read the state that it gave."""
    cache = {**question.cache, f"{state}_prev": question.cache[f"{state}_next"]}
    return replace(question, cache=cache).answer()


def _of_a_stale_bias(cache: Mapping[str, Array]) -> Mapping[str, Array]:
    """What rnn_cell_forward keeps, given the ba that rnn_forward is tested with."""
    right = task("rnn_cell_backward").arguments["cache"][-1]
    stale = {**right, "ba": task("rnn_forward").arguments["parameters"]["ba"]}
    step = Forward(RNN, cache["xt"], (cache["a_prev"],), stale)
    return {"a_next": step.answer()["a_next"]}


def _lstm() -> list[Mistake]:
    gates = "\n".join(DERIVATIVES["lstm"].values())
    return [
        _dc("1 − tanh²(c_next) is forgotten in dc", lambda o, c: o),
        _dc("Γo is forgotten in dc", lambda o, c: 1 - np.tanh(c) ** 2),
        _dc("1 − c_next² stands for 1 − tanh²(c_next)", lambda o, c: o * (1 - c**2)),
        _dc("1 − tanh(c_next) stands for 1 − tanh²(c_next)", lambda o, c: o * (1 - np.tanh(c))),
        _dc("da_next's share of dc is forgotten", lambda o, c: 0 * o),
        Mistake(
            "dc_next is forgotten",
            _DC,
            asked(gradients=lambda question: (question.gradients[0], 0 * question.gradients[1])),
            ("dc",),
        ),
        Mistake(
            "dc_prev has the share of dc_next only",
            f"dc_prev = dc ∗ Γf\n{_DC}",
            told(lambda question, _: {"dc_prev": question.gradients[1] * question.cache["ft"]}),
            ("dc_prev",),
        ),
        Mistake(
            "dc_prev lacks the forget gate",
            "dc_prev = dc ∗ Γf",
            told(lambda question, answer: {"dc_prev": answer["dc_prev"] / question.cache["ft"]}),
            ("dc_prev",),
        ),
        Mistake(
            "c_next stands for tanh(c_next) in dΓo",
            DERIVATIVES["lstm"]["o"],
            _without_tanh_in_the_output_gate,
            ("do",),
        ),
        Mistake(
            "the tanh of a = Γo ∗ tanh(c) is forgotten in dΓo and dc",
            f"{DERIVATIVES['lstm']['o']}\n{_DC}",
            equations(h="o * c"),
            ("do", "dc"),
        ),
        Mistake(
            "c_next stands for c_prev in dΓf",
            DERIVATIVES["lstm"]["f"],
            kept(lambda cache: {"c_prev": cache["c_next"]}),
            ("df",),
        ),
        Mistake(
            "a_next stands for a_prev in the gradients of the matrices",
            "dWf = dΓf [a_prev; xt]ᵀ, and so for each gate",
            kept(lambda cache: {"a_prev": cache["a_next"]}),
        ),
        Mistake(
            "the tanh is applied again: 1 − tanh²(c̃), as in the lab's equation of 2018",
            f"{DERIVATIVES['lstm']['g']}\nc̃ is the tanh already",
            _scaled("c", lambda cache: (1 - np.tanh(cache["cct"]) ** 2) / (1 - cache["cct"] ** 2)),
            ("dg_pre",),
        ),
        Mistake(
            "c_prev stands for c̃ in dΓi",
            DERIVATIVES["lstm"]["i"],
            _scaled("i", lambda cache: cache["c_prev"] / cache["cct"]),
            ("di",),
        ),
        Mistake(
            "c̃ stands for c_prev in dΓf",
            DERIVATIVES["lstm"]["f"],
            kept(lambda cache: {"c_prev": cache["cct"]}),
            ("df",),
        ),
        Mistake(
            "Γf stands for Γi in dc̃",
            DERIVATIVES["lstm"]["g"],
            _scaled("c", lambda cache: cache["ft"] / cache["it"]),
            ("dg",),
        ),
        Mistake(
            "the parentheses are dropped: dc_next's share has no Γ ∗ (1 − Γ) and no 1 − c̃², as in "
            "the lab's equations of 2018",
            gates,
            _without_parentheses,
            ("df_pre", "di_pre", "dg_pre"),
        ),
        *(
            Mistake(
                f"Γ{one} and Γ{other} are exchanged in the step c = Γi ∗ c̃ + Γf ∗ c_prev",
                f"{DERIVATIVES['lstm'][one]}\n{DERIVATIVES['lstm'][other]}",
                in_the_place_of({one: other, other: one}, ("c", "h")),
                (f"d{one}", f"d{other}"),
            )
            for one, other in combinations("fio", 2)
        ),
    ]


def _dc(name: str, share: Callable[[Array, Array], Array]) -> Mistake:
    """A mistake in the part of dc that comes from da_next: Γo and c_next → its factor.

    Nothing else depends on dc_next, so that it may bring the difference.
    """

    def gradients(question: Backward) -> tuple[Array, Array]:
        o, c = question.cache["ot"], question.cache["c_next"]
        right = o * (1 - np.tanh(c) ** 2)
        da, dc = question.gradients
        return da, dc + (share(o, c) - right) * da

    return Mistake(name, _DC, asked(gradients=gradients), ("dc",))


def _without_tanh_in_the_output_gate(question: Backward) -> Answer:
    da, dc = question.gradients
    o, c = question.cache["ot"], question.cache["c_next"]
    made_up_for = dc - o * np.tanh(c) ** 2 * da  # dc has its tanh
    return equations(h="o * c")(replace(question, gradients=(da, made_up_for)))


def _scaled(letter: str, factor: Callable[[Mapping[str, Array]], Array]) -> Made:
    """The gradient of one gate that c is made of is multiplied, given what the step kept.

    All that comes of it is linear in dc: what a dc of factor − 1 gives through this gate is added.
    """
    others = [f"W{other}" for other in "fico" if other != letter]

    def made(question: Backward) -> Answer:
        right = question.answer()
        dc = right["dc_prev"] / question.cache["ft"]
        gradients = (0 * dc, (factor(question.cache) - 1) * dc)
        more = without(*others)(replace(question, gradients=gradients))
        names = ("dxt", "da_prev", f"dW{letter}", f"db{letter}")
        return {**right, **{name: right[name] + more[name] for name in names}}

    return made


def _without_parentheses(question: Backward) -> Answer:
    da, dc = question.gradients
    right = replace(question, gradients=(da, 0 * dc)).answer()
    linear = squashed("", "f", "i", "g")(replace(question, gradients=(0 * da, dc)))
    return {name: right[name] + linear[name] for name in right}


def _updates() -> list[Mistake]:
    """Of both GRUs. The z of the cell keeps: it is 1 − Γu."""
    keeping = "dc_prev = (1 − Γu) ∗ dc_next + what comes through the gates and the candidate"
    update = DERIVATIVES["gru"]["z"]
    return [
        Mistake(
            "the update gate is the other way round: Γu keeps, and 1 − Γu replaces",
            f"c_next = Γu ∗ c̃ + (1 − Γu) ∗ c_prev: {update}\n{DERIVATIVES['gru']['n']}",
            equations(h="z * n + (1 - z) * h_prev"),
            ("dz", "dn", "dh_prev"),
        ),
        Mistake(
            "the direct way is forgotten: (1 − Γu) ∗ dc_next in dc_prev",
            keeping,
            told(
                lambda question, answer: {
                    "dc_prev": answer["dc_prev"]
                    - (1 - question.cache["ut"]) * question.gradients[0]
                }
            ),
            ("dh_prev",),
        ),
        Mistake(
            "the direct way has no gate: dc_next in dc_prev, not (1 − Γu) ∗ dc_next",
            keeping,
            told(
                lambda question, answer: {
                    "dc_prev": answer["dc_prev"] + question.cache["ut"] * question.gradients[0]
                }
            ),
            ("dh_prev",),
        ),
        Mistake("c_prev is forgotten in dΓu", update, _without_the_old_state, ("dz",)),
        Mistake("dΓu has the wrong sign: c_prev − c̃", update, _of_the_wrong_sign, ("dz",)),
    ]


def _without_the_old_state(question: Backward) -> Answer:
    found = equations(h="(1 - z) * n + h_prev")(question)  # whose direct way has no gate
    direct = found["dc_prev"] - question.cache["ut"] * question.gradients[0]
    return {**found, "dc_prev": direct}


def _of_the_wrong_sign(question: Backward) -> Answer:
    found = parameters(lambda given: {"Wu": -given["Wu"]})(question)
    return {**found, "dWu": -found["dWu"], "dbu": -found["dbu"]}


def _gru() -> list[Mistake]:
    candidate = "c̃ = tanh(Wc [Γr ∗ c_prev; xt] + bc)"
    no_reset = kept(lambda cache: {"rt": np.ones_like(cache["rt"])})
    return [
        *_updates(),
        Mistake(
            "the reset stands after the product: Γr ∗ (Wcc c_prev), as in cuDNN's GRU",
            f"{candidate}: {DERIVATIVES['gru']['r']}",
            equations(n="tanh(W.n @ x + r * (U.n @ h_prev) + b.n)"),
            ("dr", "dh_prev"),
        ),
        Mistake(
            "Γr is forgotten in dWc: the candidate reads Γr ∗ c_prev",
            f"{candidate}: dWc = dc̃ [Γr ∗ c_prev; xt]ᵀ",
            told(lambda question, answer: {"dWc": no_reset(question)["dWc"]}),
        ),
        Mistake(
            "Γr is forgotten in dc_prev: what comes through the candidate is Γr ∗ (Wccᵀ dc̃)",
            f"{candidate}: dc_prev has Γr ∗ (Wccᵀ dc̃)",
            _without_the_reset_in_the_state,
            ("dh_prev",),
        ),
    ]


def _without_the_reset_in_the_state(question: Backward) -> Answer:
    right = question.answer()
    ways = through_the_candidate(question)
    return {**right, "dc_prev": right["dc_prev"] + ways["dc_prev"] * (1 / question.cache["rt"] - 1)}


def through_the_candidate(question: Backward) -> Answer:
    """The shares of dxt and of the state's gradient that come through the candidate alone."""
    gates = [gate.weights[0] for gate in question.course.gates.values() if gate.bias != "bc"]
    with_it, without_it = without(*gates)(question), without(*gates, "Wc")(question)
    state = f"d{question.course.states[0]}_prev"
    return {name: with_it[name] - without_it[name] for name in ("dxt", state)}
