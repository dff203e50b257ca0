"""Known mistakes on the way forward."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ....backends.steps import Array
from ....functions import sigmoid
from ...course.layout import GRU, GRU_SIMPLIFIED, LSTM, RNN, CourseCell
from ..draws import N_A
from ..steps import Answer, Forward
from .changes import (
    Change,
    Mistake,
    asked,
    equations,
    exchanged,
    in_the_place_of,
    parameters,
    squashed,
    told,
    without,
)

# The course's word, symbol and equation of each value of a cell.
WORDS: Mapping[str, Mapping[str, str]] = {
    "rnn": {"h": "the hidden state"},
    "lstm": {
        "f": "the forget gate",
        "i": "the update gate",
        "g": "the candidate",
        "o": "the output gate",
    },
    "gru": {"z": "the update gate", "r": "the reset gate", "n": "the candidate"},
    "gru_simplified": {"z": "the update gate", "n": "the candidate"},
}
EQUATIONS: Mapping[str, Mapping[str, str]] = {
    "rnn": {"h": "a<t> = tanh(Waa a<t−1> + Wax x<t> + ba)"},
    "lstm": {
        "f": "Γf<t> = σ(Wf [a<t−1>; x<t>] + bf)",
        "i": "Γi<t> = σ(Wi [a<t−1>; x<t>] + bi), which the notes call Γu",
        "g": "c̃<t> = tanh(Wc [a<t−1>; x<t>] + bc)",
        "o": "Γo<t> = σ(Wo [a<t−1>; x<t>] + bo)",
        "c": "c<t> = Γi<t> ∗ c̃<t> + Γf<t> ∗ c<t−1>",
        "h": "a<t> = Γo<t> ∗ tanh(c<t>)",
    },
    "gru": {
        "z": "Γu<t> = σ(Wu [c<t−1>; x<t>] + bu)",
        "r": "Γr<t> = σ(Wr [c<t−1>; x<t>] + br)",
        "n": "c̃<t> = tanh(Wc [Γr<t> ∗ c<t−1>; x<t>] + bc)",
        "h": "c<t> = Γu<t> ∗ c̃<t> + (1 − Γu<t>) ∗ c<t−1>",
    },
    "gru_simplified": {
        "z": "Γu<t> = σ(Wu [c<t−1>; x<t>] + bu)",
        "n": "c̃<t> = tanh(Wc [c<t−1>; x<t>] + bc)",
        "h": "c<t> = Γu<t> ∗ c̃<t> + (1 − Γu<t>) ∗ c<t−1>",
    },
}


def steps_forward(course: CourseCell) -> list[Mistake]:
    """The mistakes of one step forward."""
    own = {RNN: _rnn, LSTM: _lstm, GRU: _gru, GRU_SIMPLIFIED: _updates}
    return [*_output_layer(course), *_any_cell(course), *own[course](EQUATIONS[course.name])]


def sequences_forward(course: CourseCell) -> list[Mistake]:
    """The mistakes of all steps forward, beside those of every step."""
    state = course.states[0]
    first = f"{state}<0> = {state}0"
    carried = f"step t begins with {state}<t−1>, what the step before left"

    def stored(change: Any) -> Any:
        """Another storing of what the steps gave: (n, m, T) → the same."""
        names = [*course.states, "y"]
        return told(lambda question, answer: {name: change(answer[name]) for name in names})

    def before(question: Any, answer: Answer) -> Answer:
        return {state: answer[f"{state}_prev"] for state in course.states}

    found = [
        Mistake(
            f"{state}0 is ignored: the first step begins with zeros",
            first,
            asked(states=lambda question: tuple(map(np.zeros_like, question.states))),
        ),
        Mistake(
            f"{state} is not carried: every step begins with {state}0",
            carried,
            asked(carried=lambda question: (False, True)),
        ),
        Mistake(
            "every step reads the first input",
            "step t reads x<t>, that is x[:, :, t]",
            asked(x=lambda question: np.repeat(question.x[:, :, :1], question.x.shape[2], 2)),
        ),
        Mistake(
            "the sequence is read from its end",
            "step 1 reads x<1>; a sequence is read from its end only by the other half of a "
            "bidirectional layer",
            asked(x=lambda question: question.x[:, :, ::-1]),
        ),
        Mistake(
            "only the last step is stored",
            f"{state}[:, :, t] = {state}<t> at every step, inside the loop",
            stored(
                lambda array: np.where(np.arange(array.shape[2]) == array.shape[2] - 1, array, 0)
            ),
        ),
        Mistake(
            "what a step began with is stored, not what it gave",
            f"{state}[:, :, t] = {state}<t>, not {state}<t−1>",
            told(before),
        ),
    ]
    if course is LSTM:
        found += [
            Mistake(
                "c is not carried: every step begins with a cell state of zeros",
                "step t begins with c<t−1>, what the step before left",
                asked(carried=lambda question: (True, False)),
            ),
            Mistake(
                "neither a nor c is carried from step to step",
                "step t begins with a<t−1> and c<t−1>, what the step before left",
                asked(carried=lambda question: (False, False)),
            ),
            Mistake(
                "the cell state begins with a0",
                "c<0> = 0: only the hidden state is given",
                asked(states=lambda question: (question.states[0],) * 2),
            ),
            Mistake(
                "a and c are exchanged where they are stored",
                "a[:, :, t] = a<t>, c[:, :, t] = c<t>\nthe function returns a, y, c, caches",
                told(lambda question, answer: exchanged(answer, {"a": "c"})),
            ),
        ]
    return found


def _output_layer(course: CourseCell) -> list[Mistake]:
    state = course.states[0]
    weights = "Wya" if course is RNN else "Wy"
    equation = f"y<t> = softmax({weights} {state}<t> + by), so that every column sums to 1"

    def scores(of: str, squash: Any) -> Change:
        """The predictions, from another state, or squashed in another way."""

        def change(question: Forward, answer: Answer) -> Answer:
            W, b = question.parameters[weights], question.parameters["by"]
            return {"y": squash(W @ answer[of] + b)}

        return change

    new, old = f"{state}_next", f"{state}_prev"
    found = [
        Mistake("a sigmoid stands for the softmax", equation, told(scores(new, sigmoid))),
        Mistake(
            "the softmax is missing: y is Wy a + by".replace("Wy a", f"{weights} {state}"),
            equation,
            told(scores(new, np.asarray)),
        ),
        Mistake(
            "the softmax runs over the examples, along axis 1",
            equation,
            told(scores(new, lambda z: _softmax(z, 1))),
        ),
        Mistake(
            "the softmax runs over all numbers at once: the sum has no axis",
            equation,
            told(scores(new, lambda z: _softmax(z, None))),
        ),
        Mistake("by is forgotten", equation, without("by")),
        Mistake(
            f"the prediction is made from {old}, not from {new}",
            equation,
            told(scores(old, lambda z: _softmax(z, 0))),
        ),
    ]
    if course is LSTM:
        found.append(
            Mistake(
                "the prediction is made from c_next, not from a_next",
                equation,
                told(scores("c_next", lambda z: _softmax(z, 0))),
            )
        )
    return found


def _softmax(z: Array, axis: int | None) -> Array:
    powers = np.exp(z - z.max())
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _any_cell(course: CourseCell) -> Iterator[Mistake]:
    texts, words, state = EQUATIONS[course.name], WORDS[course.name], course.states[0]
    own = [*course.gates]
    all_of_them = "\n".join(texts[gate] for gate in own)
    biases = [gate.bias for gate in course.gates.values()]
    for name, gate in course.gates.items():
        yield Mistake(f"{gate.bias} is forgotten", texts[name], without(gate.bias), (name,))
    if len(biases) > 1:
        yield Mistake(
            f"the biases {', '.join(biases)} are forgotten",
            all_of_them,
            without(*biases),
            tuple(own),
        )
    for left, ignored in ((slice(N_A), "x<t>"), (slice(N_A, None), f"{state}<t−1>")):
        yield Mistake(
            f"{ignored} is ignored in the products",
            all_of_them,
            parameters(lambda given, left=left: _only(course, given, left)),  # type: ignore[misc]
            tuple(own),
        )
    for name in own:
        right = "tanh" if name in "hgn" else "sigmoid"
        others = {"h": ("sigmoid", "relu", "")}.get(
            name, ("sigmoid" if right == "tanh" else "tanh", "")
        )
        for other in others:
            stands = f"a {other} stands" if other else "nothing stands"
            yield Mistake(
                f"{stands} for the {right} of {words[name]}",
                texts[name],
                squashed(other, name),
                (name,),
            )
    if course is not RNN:
        yield Mistake(
            f"the concatenation is the other way round: [x<t>; {state}<t−1>]",
            f"[{state}<t−1>; x<t>]: {state} on top, in the first n_a columns of each matrix",
            parameters(lambda given: turned_matrices(course, given)),
            tuple(own),
        )
        for one, other in combinations(own, 2):
            pair = course.gates[one], course.gates[other]
            yield Mistake(
                f"{pair[0].weights[0]} and {pair[1].weights[0]}, and their biases, are exchanged",
                f"{texts[one]}\n{texts[other]}",
                parameters(lambda given, pair=pair: exchanged(given, _keys(*pair))),  # type: ignore[misc]
                (one, other),
            )


def _keys(one: Any, other: Any) -> dict[str, str]:
    return {one.weights[0]: other.weights[0], one.bias: other.bias}


def turned_matrices(course: CourseCell, given: Mapping[str, Array]) -> dict[str, Array]:
    """Matrices that do to [a; x] what the given ones do to [x; a]."""
    found = {}
    for gate in course.gates.values():
        W = given[gate.weights[0]]
        found[gate.weights[0]] = np.roll(W, len(W), axis=1)  # n_a columns for a come first
    return found


def _only(course: CourseCell, given: Mapping[str, Array], left: slice) -> dict[str, Array]:
    """Matrices that are zero but for some columns of the two of a gate, side by side."""
    found: dict[str, Array] = {}
    for gate in course.gates.values():
        matrices = [given[key] for key in gate.weights]
        both = np.zeros_like(np.hstack(matrices))
        both[:, left] = np.hstack(matrices)[:, left]
        parts = np.split(both, [len(both)] if len(matrices) == 2 else [], axis=1)
        found.update(zip(gate.weights, parts, strict=True))
    return found


def _rnn(texts: Mapping[str, str]) -> list[Mistake]:
    return [
        Mistake(
            "Waa is transposed",
            texts["h"],
            parameters(lambda given: {"Waa": given["Waa"].T}),
            ("h",),
        )
    ]


def _lstm(texts: Mapping[str, str]) -> list[Mistake]:
    found = [
        Mistake(
            "the tanh of a = Γo ∗ tanh(c) is missing", texts["h"], equations(h="o * c"), ("h",)
        ),
        Mistake(
            "a sigmoid stands for the tanh of a = Γo ∗ tanh(c)",
            texts["h"],
            equations(h="o * sigmoid(c)"),
            ("h",),
        ),
        Mistake(
            "a is made of c_prev, not of c_next",
            texts["h"],
            equations(h="o * tanh(c_prev)"),
            ("h",),
        ),
        Mistake("a is made of c̃, not of c", texts["h"], equations(h="o * tanh(g)"), ("h",)),
        Mistake("a is made without the output gate", texts["h"], equations(h="tanh(c)"), ("h",)),
        Mistake("the forget gate is left out", texts["c"], equations(c="c_prev + i * g"), ("c",)),
        Mistake("the update gate is left out", texts["c"], equations(c="f * c_prev + g"), ("c",)),
        Mistake("the old cell state is left out", texts["c"], equations(c="i * g"), ("c",)),
        Mistake(
            "a plus stands for the product Γf ∗ c_prev",
            texts["c"],
            equations(c="f + c_prev + i * g"),
            ("c",),
        ),
        Mistake(
            "a plus stands for the product Γi ∗ c̃",
            texts["c"],
            equations(c="f * c_prev + i + g"),
            ("c",),
        ),
        Mistake(
            "the forget gate is the other way round: 1 − Γf keeps",
            texts["c"],
            equations(c="(1 - f) * c_prev + i * g"),
            ("c",),
        ),
        Mistake(
            "1 − Γf stands for Γi, as in a GRU or a coupled LSTM",
            texts["c"],
            equations(c="f * c_prev + (1 - f) * g"),
            ("c",),
        ),
        Mistake(
            "the gates read c_prev, not a_prev",
            "\n".join(texts[gate] for gate in "figo"),
            in_the_place_of({"h_prev": "c_prev"}, ("f", "i", "g", "o")),
            ("f", "i", "g", "o"),
        ),
    ]
    for one, other in combinations("figo", 2):
        if (one, other) != ("i", "g"):  # their product is the same
            symbols = [texts[gate].partition(" ")[0].removesuffix("<t>") for gate in (one, other)]
            found.append(
                Mistake(
                    f"{symbols[0]} and {symbols[1]} are exchanged where c and a are made",
                    f"{texts['c']}\n{texts['h']}",
                    in_the_place_of({one: other, other: one}, ("c", "h")),
                    ("c", "h"),
                )
            )
    return found


def _updates(texts: Mapping[str, str]) -> list[Mistake]:
    """Of both GRUs. The z of the cell keeps: it is 1 − Γu."""
    return [
        Mistake(
            "the update gate is the other way round: Γu keeps, and 1 − Γu replaces",
            texts["h"],
            equations(h="z * n + (1 - z) * h_prev"),
            ("h",),
        ),
        Mistake(
            "a plus stands for the product (1 − Γu) ∗ c_prev",
            texts["h"],
            equations(h="(1 - z) * n + z + h_prev"),
            ("h",),
        ),
        Mistake(
            "the old state is left out",
            texts["h"],
            equations(h="(1 - z) * n"),
            ("h",),
        ),
        Mistake(
            "the old state is added without its gate 1 − Γu",
            texts["h"],
            equations(h="(1 - z) * n + h_prev"),
            ("h",),
        ),
    ]


def _gru(texts: Mapping[str, str]) -> list[Mistake]:
    return [
        *_updates(texts),
        Mistake(
            "the reset stands after the product: Γr ∗ (Wcc c_prev), as in cuDNN's GRU",
            texts["n"],
            equations(n="tanh(W.n @ x + r * (U.n @ h_prev) + b.n)"),
            ("n",),
        ),
        Mistake(
            "the reset stands after the product and the bias: Γr ∗ (Wcc c_prev + bc)",
            texts["n"],
            equations(n="tanh(W.n @ x + r * (U.n @ h_prev + b.n))"),
            ("n",),
        ),
        Mistake(
            "the reset gate meets the input too: Wc (Γr ∗ [c_prev; x])",
            texts["n"],
            equations(n="tanh(r * (W.n @ x + U.n @ h_prev) + b.n)"),
            ("n",),
        ),
        Mistake(
            "the reset gate is left out",
            texts["n"],
            equations(n="tanh(W.n @ x + U.n @ h_prev + b.n)"),
            ("n",),
        ),
        Mistake(
            "the reset gate is the other way round: 1 − Γr",
            texts["n"],
            equations(n="tanh(W.n @ x + U.n @ ((1 - r) * h_prev) + b.n)"),
            ("n",),
        ),
        Mistake(
            "Γr stands for 1 − Γu where the old state is kept",
            texts["h"],
            equations(h="(1 - z) * n + r * h_prev"),
            ("h",),
        ),
    ]
