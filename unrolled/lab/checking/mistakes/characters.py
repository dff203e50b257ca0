"""Known mistakes in the functions of the character-level lab."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ....backends.steps import Array
from ...course import characters, rnn_forward
from ...course.layout import RNN
from ..steps import Answer, BackwardThroughTime
from .changes import Mistake

Asked = Mapping[str, Any]


def of_clip() -> list[Mistake]:
    """The mistakes of `clip`."""
    equation = "−maxValue ≤ every number ≤ maxValue: np.clip(gradient, −maxValue, maxValue)"

    def each(change: Callable[[Array, float], Array]) -> Callable[[Asked], Answer]:
        return lambda asked: {
            name: change(array, asked["maxValue"]) for name, array in asked["gradients"].items()
        }

    def norm(arrays: Any) -> float:
        return float(np.sqrt(sum(np.sum(array**2) for array in arrays)))

    def all_scaled(asked: Asked) -> Answer:
        gradients, bound = asked["gradients"], asked["maxValue"]
        factor = min(1.0, bound / norm(gradients.values()))
        return {name: factor * array for name, array in gradients.items()}

    return [
        Mistake("nothing is clipped", equation, each(lambda array, bound: array)),
        Mistake("nothing is clipped from below", equation, each(np.minimum)),
        Mistake(
            "nothing is clipped from above",
            equation,
            each(lambda array, bound: np.maximum(array, -bound)),
        ),
        Mistake(
            "the lower bound is 0, not −maxValue",
            equation,
            each(lambda array, bound: np.clip(array, 0, bound)),
        ),
        Mistake(
            "what lies outside becomes 0, not the bound",
            equation,
            each(lambda array, bound: np.where(np.abs(array) > bound, 0, array)),
        ),
        Mistake(
            "what lies outside becomes maxValue, whatever its sign",
            equation,
            each(lambda array, bound: np.where(np.abs(array) > bound, bound, array)),
        ),
        Mistake(
            "each array is scaled by its norm; here each number is clipped",
            equation,
            each(lambda array, bound: array * min(1.0, bound / norm([array]))),
        ),
        Mistake(
            "all arrays are scaled by their common norm; here each number is clipped",
            equation,
            all_scaled,
        ),
    ]


def of_sample() -> list[Mistake]:
    """The mistakes of `sample`. What is not carried meets a matrix of zeros instead."""
    state = "a<t> = tanh(Wax x<t> + Waa a<t−1> + b), a<0> = 0"
    output = "y<t> = softmax(Wya a<t> + by)"

    def given(change: Callable[[Asked], Mapping[str, Array]]) -> Callable[[Asked], Answer]:
        return lambda asked: _sampled(
            {**asked, "parameters": {**asked["parameters"], **change(asked["parameters"])}}
        )

    def zero(key: str) -> Callable[[Asked], Answer]:
        return given(lambda parameters: {key: np.zeros_like(parameters[key])})

    def certain(parameters: Asked) -> dict[str, Array]:
        return {key: 1e9 * parameters[key] for key in ("Wya", "by")}

    return [
        Mistake("the state is not carried: a_prev stays zero", f"{state}\na_prev = a", zero("Waa")),
        Mistake(
            "what was drawn is not fed back: x stays zero",
            f"{state}\nx<t+1> is one-hot, the character drawn at step t",
            zero("Wax"),
        ),
        Mistake("b is forgotten", state, zero("b")),
        Mistake("by is forgotten", output, zero("by")),
        Mistake(
            "the likeliest character is taken, none is drawn",
            f"{output}\nnp.random.choice(…, p=y.ravel())",
            given(certain),
        ),
        Mistake(
            "the newline that ends the name is left out",
            "indices.append(idx) comes before the loop looks whether it was the newline",
            lambda asked: {"indices": _sampled(asked)["indices"][:-1]},
        ),
    ]


def _sampled(asked: Asked) -> Answer:
    return {"indices": np.array(characters.sample(**asked), np.float64)}


def of_optimize() -> list[Mistake]:
    """The mistakes of `optimize`."""
    loss = "loss = −Σ_t log y<t>[Y<t>], in nats"
    clip = "clip(gradients, 5), before the parameters are updated"
    update = "parameters[key] −= learning_rate ∗ gradients['d' + key]"

    def scaled(factor: Callable[[Asked], float]) -> Callable[[Asked], Answer]:
        return lambda asked: {**(right := _optimized(asked)), "loss": factor(asked) * right["loss"]}

    def rated(rate: Callable[[float], float]) -> Callable[[Asked], Answer]:
        return lambda asked: _optimized({**asked, "learning_rate": rate(asked["learning_rate"])})

    def started(asked: Asked) -> Answer:
        return _optimized({**asked, "a_prev": np.zeros_like(asked["a_prev"])})

    return [
        Mistake(
            "the loss is a mean over the characters, not a sum",
            loss,
            scaled(lambda asked: 1 / len(asked["X"])),
        ),
        Mistake("the loss is in bits, not in nats", loss, scaled(lambda asked: 1 / np.log(2))),
        Mistake("the loss has the wrong sign", loss, scaled(lambda asked: -1.0)),
        Mistake("the gradients are not clipped", clip, lambda asked: _in_parts(asked, clip=False)),
        Mistake(
            "the clipped gradients are returned, but the parameters are updated with the unclipped",
            clip,
            lambda asked: {**_in_parts(asked, clip=False), **_gradients(_optimized(asked))},
        ),
        Mistake(
            "the unclipped gradients are returned, those before clip",
            clip,
            lambda asked: {**_optimized(asked), **_gradients(_in_parts(asked, clip=False))},
        ),
        Mistake("the parameters are not updated", update, rated(lambda rate: 0.0)),
        Mistake("the step goes up the gradient, not down", update, rated(lambda rate: -rate)),
        Mistake("the learning rate is forgotten", update, rated(lambda rate: 1.0)),
        Mistake("a_prev is ignored: the name begins with zeros", "a<0> = a_prev", started),
        Mistake(
            "the first state is returned, not the last",
            "a_last = a<T_x>: the next name begins with it",
            lambda asked: {**_optimized(asked), "a_last": _forward(asked)[0][:, :, 0]},
        ),
        Mistake(
            "da_prev is not carried to the step before",
            "da of step t is Wyaᵀ dy<t> + da_prev of step t + 1",
            lambda asked: _in_parts(asked, carried=False),
        ),
        Mistake(
            "Y is not subtracted: dy<t> is y<t>",
            "dy<t> = y<t> − one-hot of Y<t>",
            lambda asked: _in_parts(asked, subtract=False),
        ),
    ]


def _gradients(answer: Answer) -> Answer:
    return {name: array for name, array in answer.items() if name.startswith("gradients")}


def _optimized(asked: Asked) -> Answer:
    mine = {name: array.copy() for name, array in asked["parameters"].items()}
    loss, gradients, last = characters.optimize(**{**asked, "parameters": mine})
    after = {f"parameters: {name}": array for name, array in mine.items()}
    return {"loss": np.array(loss), **_in(gradients), "a_last": last, **after}


def _in(gradients: Answer) -> Answer:
    """Gradients by the names that they have in a report."""
    return {f"gradients: {name}": array for name, array in gradients.items()}


def _forward(asked: Asked) -> tuple[Array, Array, Any]:
    """The states, the predictions and the caches, by the lab's function for sequences."""
    parameters = {**asked["parameters"], "ba": asked["parameters"]["b"]}
    x = np.eye(len(parameters["by"]))[asked["X"]].T[:, None]
    return rnn_forward(x, asked["a_prev"], parameters)


def _in_parts(
    asked: Asked, *, clip: bool = True, carried: bool = True, subtract: bool = True
) -> Answer:
    """The step of training put together from the lab's other functions, one of them left out."""
    a, y, (steps, _) = _forward(asked)
    targets = np.eye(len(y))[asked["Y"]].T[:, None]
    dy = y - targets if subtract else y
    parameters = steps[0][-1]
    back = BackwardThroughTime(
        RNN,
        np.tensordot(parameters["Wya"].T, dy, 1),
        [dict(zip(RNN.cache, step, strict=False)) for step in steps],
        parameters,
        carried=(carried,),
    ).answer()
    gradients = {
        "dWax": back["dWax"],
        "dWaa": back["dWaa"],
        "db": back["dba"],
        "dWya": np.tensordot(dy, a, ([1, 2], [1, 2])),
        "dby": dy.sum(axis=2),
    }
    gradients = characters.clip(gradients, characters.CLIP) if clip else gradients
    after = {
        f"parameters: {name}": array - asked["learning_rate"] * gradients[f"d{name}"]
        for name, array in asked["parameters"].items()
    }
    loss = -np.log(y[targets == 1]).sum()
    return {"loss": loss, **_in(gradients), "a_last": a[:, :, -1], **after}
