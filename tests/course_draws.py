"""What the tests of the course lab share: its draws, small shapes, and central differences."""

import numpy as np

_OUTPUT = {"Wy": (2, 3), "by": (2, 1)}
_GRU = dict.fromkeys(("Wu", "Wr", "Wc"), (3, 5)) | dict.fromkeys(("bu", "br", "bc"), (3, 1))

# The shapes of small cells: n_x = 2, n_a = 3, n_y = 2.
SMALL = {
    "rnn": {"Wax": (3, 2), "Waa": (3, 3), "ba": (3, 1), "Wya": (2, 3), "by": (2, 1)},
    "lstm": {
        **dict.fromkeys(("Wf", "Wi", "Wc", "Wo"), (3, 5)),
        **dict.fromkeys(("bf", "bi", "bc", "bo"), (3, 1)),
        **_OUTPUT,
    },
    "gru": {**_GRU, **_OUTPUT},
    "gru_simplified": {
        **{key: shape for key, shape in _GRU.items() if key not in ("Wr", "br")},
        **_OUTPUT,
    },
}


class Draws:
    """Successive arrays of the legacy generator."""

    def __init__(self, seed=1):
        self._random = np.random.RandomState(seed)

    def __call__(self, *shape):
        return self._random.randn(*shape)

    def all(self, shapes):
        return {key: self(*shape) for key, shape in shapes.items()}


def slope(loss, arrays, key, place, step=1e-6):
    """The change of the loss with one number of one array."""
    moved = []
    for direction in (1, -1):
        changed = {**arrays, key: arrays[key].copy()}
        changed[key][place] += direction * step
        moved.append(loss(changed))
    return (moved[0] - moved[1]) / (2 * step)


def check_gradients(loss, arrays, gradients):
    """Every number of every gradient; `gradients` are by the keys of `arrays`."""
    for key, gradient in gradients.items():
        assert gradient.shape == arrays[key].shape, key
        numeric = np.empty_like(gradient)
        for place in np.ndindex(gradient.shape):
            numeric[place] = slope(loss, arrays, key, place)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8, err_msg=key)
