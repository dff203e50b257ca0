"""Known mistakes on the way back: those of any cell, of gates, and of the way through time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ....backends.steps import Array
from ...course.layout import RNN, CourseCell
from ..draws import N_X, M
from ..steps import Answer
from .backward_cells import DERIVATIVES, of_cell, through_the_candidate
from .changes import (
    Made,
    Mistake,
    asked,
    exchanged,
    kept,
    parameters,
    squashed,
    told,
    without,
)
from .forward import WORDS, turned_matrices


def steps_backward(course: CourseCell) -> list[Mistake]:
    """The mistakes of one step back."""
    gates = _gates(course) if course is not RNN else []
    return [*_any_cell(course), *gates, *of_cell(course)]


def sequences_backward(course: CourseCell) -> list[Mistake]:
    """The mistakes of all steps back, beside those of every step."""
    first, *others = course.states
    d_prev, loop = f"d{first}_prev", "for t in reversed(range(T_x))"
    adding = f"d{first}_next of step t is d{first}<t> + {d_prev} of step t + 1"
    summing = "the parameters serve at every step, so their gradients are sums over the steps: +="

    def each_parameter(change: Callable[[Sequence[Array]], Array]) -> Made:
        return asked(summed=lambda question: change)

    def last_only(question: Any) -> Array:
        return np.where(np.arange(question.da.shape[2]) == question.da.shape[2] - 1, question.da, 0)

    found = [
        Mistake(
            f"{d_prev} is not carried to the step before",
            adding,
            asked(carried=lambda question: (False, True)),
            ("dh",),
        ),
        Mistake(
            f"d{first}<t> counts at the last step only: before it, {d_prev} stands alone",
            adding,
            asked(da=last_only),
            ("dh",),
        ),
        Mistake(
            "the steps are gone through from the first to the last",
            loop,
            asked(from_the_end=lambda question: False),
        ),
        Mistake(
            "the gradients of the parameters are those of one step: each overwrites the other's",
            summing,
            each_parameter(lambda steps: steps[-1]),
        ),
        Mistake(
            "the gradients of the parameters are those of the last step only",
            summing,
            each_parameter(lambda steps: steps[0]),
        ),
        Mistake(
            "the gradients of the parameters are means over the steps, not sums",
            summing,
            each_parameter(lambda steps: np.mean(steps, axis=0)),
        ),
        Mistake(
            "the gradients of the parameters lack one step: the loop ends before step 1",
            f"{loop}: t goes down to 0",
            each_parameter(lambda steps: np.sum(steps[:-1], axis=0)),
        ),
        Mistake(
            "dx stands in reversed order",
            "dx[:, :, t] = dxt of step t",
            told(lambda question, answer: {"dx": answer["dx"][:, :, ::-1]}),
        ),
    ]
    if others:
        found += [
            Mistake(
                "dc_prev is not carried to the step before",
                "dc_next of step t is dc_prev of step t + 1",
                asked(carried=lambda question: (True, False)),
                ("dc",),
            ),
            Mistake(
                "neither da_prev nor dc_prev is carried to the step before, as in the lab of 2018",
                f"{adding}\ndc_next of step t is dc_prev of step t + 1",
                asked(carried=lambda question: (False, False)),
                ("dh", "dc"),
            ),
        ]
    return found


def _of_parameters(answer: Answer) -> list[str]:
    return [name for name in answer if name[:2] in ("dW", "db")]


def _any_cell(course: CourseCell) -> Iterator[Mistake]:
    texts, words = DERIVATIVES[course.name], WORDS[course.name]
    for name in course.gates:
        right = "tanh" if name in "hgn" else "sigmoid"
        other = "sigmoid" if right == "tanh" else "tanh"
        yield Mistake(
            f"the derivative of the {right} of {words[name]} is forgotten",
            texts[name],
            squashed("", name),
            (f"d{name}_pre",),
        )
        yield Mistake(
            f"the derivative of a {other} stands for that of the {right} of {words[name]}",
            texts[name],
            squashed(other, name),
            (f"d{name}_pre",),
        )
    sums = "parameters serve every example, so their gradients are sums over the examples"
    biases = [f"d{gate.bias}" for gate in course.gates.values()]
    yield Mistake(
        "the gradients of the parameters are means over the examples, not sums",
        sums,
        told(lambda question, answer: {name: answer[name] / M for name in _of_parameters(answer)}),
    )
    yield Mistake(
        f"{', '.join(biases)}: means over the examples, not sums",
        f"{sums}: np.sum(…, axis=1, keepdims=True)",
        told(lambda question, answer: {name: answer[name] / M for name in biases}),
    )
    if course is RNN:
        yield Mistake(
            "Waa is not transposed in da_prev",
            "da_prev = Waaᵀ dz",
            parameters(lambda given: {"Waa": given["Waa"].T}),
            ("dh_prev",),
        )
        yield Mistake(
            "dWaa is transposed",
            "dWaa = dz a_prevᵀ",
            told(lambda question, answer: {"dWaa": answer["dWaa"].T}),
        )


def _gates(course: CourseCell) -> Iterator[Mistake]:
    """Of cells with gates."""
    state, texts, words = course.states[0], DERIVATIVES[course.name], WORDS[course.name]
    own = [*course.gates]
    matrices = [f"d{gate.weights[0]}" for gate in course.gates.values()]
    both = f"[{state}_prev; xt]"
    reading = ", ".join(f"dW{letter[2:]} = dΓ{letter[2:]} {both}ᵀ" for letter in matrices[:1])
    slices = f"d{state}_prev takes the first n_a columns of each matrix, dxt the others"
    yield Mistake(
        "the derivatives of all nonlinearities of the gates are forgotten",
        "\n".join(texts[name] for name in own),
        squashed("", *own),
        tuple(f"d{name}_pre" for name in own),
    )
    yield Mistake(
        f"the concatenation is the other way round, [xt; {state}_prev], in " + ", ".join(matrices),
        reading,
        told(lambda question, answer: {name: _turned(answer[name]) for name in matrices}),
    )
    yield Mistake(
        f"the columns for {state}_prev and xt are exchanged: the last n_a are taken for "
        f"{state}_prev",
        slices,
        parameters(lambda given: turned_matrices(course, given)),
        ("dh_prev", "dx"),
    )
    yield Mistake(
        f"the concatenation is the other way round everywhere: [xt; {state}_prev]",
        f"{reading}\n{slices}",
        _both_turned(course, matrices),
        ("dh_prev", "dx"),
    )
    yield Mistake(
        f"the matrices are not transposed in d{state}_prev",
        f"d{state}_prev = Wᵀ dΓ, summed over the gates, with the first n_a columns of each W",
        parameters(lambda given: _square_transposed(course, given)),
        ("dh_prev",),
    )
    for name, gate in course.gates.items():
        yield Mistake(
            f"{words[name]}'s share is missing in d{state}_prev and dxt",
            f"d{state}_prev and dxt are sums over all gates, {gate.weights[0]}ᵀ among them",
            _without_a_share(gate.weights[0]),
            ("dh_prev", "dx"),
        )
    letters = {ours: theirs for theirs, ours in course.cache.items()}
    for one, other in combinations(own, 2):
        gates = course.gates[one], course.gates[other]
        weights = [gate.weights[0] for gate in gates]
        pairs = {f"d{a}": f"d{b}" for a, b in zip(*map(_keys, gates), strict=True)}
        yield Mistake(
            f"the gradients of {weights[0]} and {weights[1]}, and of their biases, are exchanged",
            f"{texts[one]}\n{texts[other]}",
            told(lambda question, answer, pairs=pairs: exchanged(answer, pairs)),  # type: ignore[misc]
            (f"d{one}_pre", f"d{other}_pre"),
        )
        yield Mistake(
            f"{weights[0]} and {weights[1]} are exchanged in d{state}_prev and dxt",
            f"d{state}_prev = Wᵀ dΓ, summed over the gates, each with its own W",
            parameters(
                lambda given, weights=weights: exchanged(given, {weights[0]: weights[1]})  # type: ignore[misc]
            ),
            ("dh_prev", "dx"),
        )
        both = f"{words[one]}'s and {words[other]}'s gradients"
        yield Mistake(
            f"{both} are exchanged everywhere",
            f"{texts[one]}\n{texts[other]}",
            _both_exchanged(pairs, {weights[0]: weights[1]}),
            (f"d{one}_pre", f"d{other}_pre"),
        )
        names = letters[one], letters[other]
        yield Mistake(
            f"{names[0]} and {names[1]} are exchanged where the cache is unpacked",
            f"cache = ({', '.join([*course.cache, 'parameters'])})",
            kept(lambda cache, names=names: exchanged(cache, {names[0]: names[1]})),  # type: ignore[misc]
        )


def _keys(gate: Any) -> tuple[str, str]:
    return gate.weights[0], gate.bias


def _both_exchanged(pairs: Mapping[str, str], weights: Mapping[str, str]) -> Made:
    shares = parameters(lambda given: exchanged(given, weights))

    def made(question: Any) -> Answer:
        answer = shares(question)
        return {**answer, **exchanged(answer, pairs)}

    return made


def _turned(gradient: Array) -> Array:
    """A gradient for [a; x] as one for [x; a]."""
    return np.roll(gradient, N_X, axis=1)


def _both_turned(course: CourseCell, matrices: Sequence[str]) -> Made:
    columns = parameters(lambda given: turned_matrices(course, given))

    def made(question: Any) -> Answer:
        answer = columns(question)
        return {**answer, **{name: _turned(answer[name]) for name in matrices}}

    return made


def _square_transposed(course: CourseCell, given: Mapping[str, Array]) -> dict[str, Array]:
    found = {}
    for gate in course.gates.values():
        W = given[gate.weights[0]]
        found[gate.weights[0]] = np.hstack([W[:, : len(W)].T, W[:, len(W) :]])
    return found


def _without_a_share(key: str) -> Made:
    """The gradients of state and input lack the share of one gate."""
    if key != "Wc":
        return without(key)

    def made(question: Any) -> Answer:  # a reset gate's gradient comes through Wc too, and stays
        answer: Answer = question.answer()
        shares = through_the_candidate(question)
        return {**answer, **{name: answer[name] - share for name, share in shares.items()}}

    return made
