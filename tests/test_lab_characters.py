"""The character-level lab: clip, sample, optimize and model give the numbers of the course.

The list of dinosaurs is not in this tree, for nobody knows its licence: the test of training looks
for it in UNROLLED_DINOS, or beside the project, and is skipped where it is not.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from unrolled import InputError
from unrolled.lab.course import clip, model, optimize, sample

DATA = Path(__file__).parents[2] / "shared" / "data"
DINOS = Path(os.environ.get("UNROLLED_DINOS", DATA / "dinos" / "dinos.txt"))
DINOS_SHA256 = "ad6465621cf56c08f71d4fbb40cf7eab763f9df42c54cc460d6c4d86e9c927fb"
NAMES = DATA / "names" / "names.txt"

CHARACTERS = dict(enumerate("\nabcdefghijklmnopqrstuvwxyz"))
NUMBERS = {character: number for number, character in CHARACTERS.items()}


def drawn(seed, first=()):
    """The arrays `first`, then a model of 100 units."""
    draw = np.random.RandomState(seed).randn
    arrays = [draw(*shape) for shape in first]
    shapes = {"Wax": (100, 27), "Waa": (100, 100), "Wya": (27, 100), "b": (100, 1), "by": (27, 1)}
    return *arrays, {key: draw(*shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(("bound", "expected"), [(10, (10, -10, 10)), (5, (5, -5, 5))])
def test_clip(bound, expected):
    draw = np.random.RandomState(3).randn
    shapes = {"dWax": (5, 3), "dWaa": (5, 5), "dWya": (2, 5), "db": (5, 1), "dby": (2, 1)}
    gradients = {key: draw(*shape) * 10 for key, shape in shapes.items()}
    before = {key: array.copy() for key, array in gradients.items()}
    assert before["dWaa"][1][2] == pytest.approx(14.861483550745902, rel=1e-12)
    assert before["dWax"][3][1] == pytest.approx(-13.138647533626822, rel=1e-12)
    assert before["db"][4][0] == pytest.approx(14.87543132, abs=6e-9)
    clipped = clip(gradients, bound)
    assert (clipped["dWaa"][1][2], clipped["dWax"][3][1], clipped["db"][4][0]) == expected
    assert clipped["dWya"][1][2] == pytest.approx(0.2971381536101662, rel=1e-12)
    assert clipped["dby"][1][0] == pytest.approx(min(bound, 8.45833407), abs=6e-9)
    for key, array in before.items():
        np.testing.assert_array_equal(gradients[key], array)


def test_sample():
    (parameters,) = drawn(24)
    assert sample(parameters, NUMBERS, 0) == [
        *(23, 16, 26, 26, 24, 3, 21, 1, 7, 24, 15, 3, 25, 20, 6, 13, 10, 8, 20, 12, 2, 0)
    ]


def test_a_name_that_does_not_end_is_ended():
    (parameters,) = drawn(2)
    found = sample(parameters, NUMBERS, 0)
    assert found[:43] == [  # of a longer name; engines differ in the rounding of what follows
        *(12, 17, 24, 14, 13, 9, 10, 22, 24, 6, 13, 11, 12, 6, 21, 15, 21, 14, 3, 2, 1, 21, 18),
        *(24, 7, 25, 6, 25, 18, 10, 16, 2, 3, 8, 15, 12, 11, 7, 1, 12, 10, 2, 7),
    ]
    never = {**parameters, "by": np.where(np.arange(27)[:, None] == 0, -1e6, parameters["by"])}
    found = sample(never, NUMBERS, 0)
    assert len(found) == 51
    assert found[-1] == 0
    assert 0 not in found[:-1]


X, Y = [12, 3, 5, 11, 22, 3], [4, 14, 11, 22, 25, 26]


def test_optimize():
    a_prev, parameters = drawn(1, [(100, 1)])
    before = {key: array.copy() for key, array in parameters.items()}
    loss, gradients, a_last = optimize(X, Y, a_prev, parameters)
    assert loss == pytest.approx(126.50397572165383, rel=1e-10)
    assert gradients["dWaa"][1][2] == pytest.approx(0.1947093153471555, rel=1e-10)
    assert np.argmax(gradients["dWax"]) == 93
    assert gradients["dWya"][1][2] == pytest.approx(-0.007773876032002889, rel=1e-10)
    assert gradients["db"][4][0] == pytest.approx(-0.06809825, abs=6e-9)
    assert gradients["dby"][1][0] == pytest.approx(0.01538192, abs=6e-9)
    assert a_last.shape == (100, 1)
    assert a_last[4][0] == pytest.approx(-1, rel=1e-8)
    for key, array in parameters.items():
        np.testing.assert_allclose(array, before[key] - 0.01 * gradients[f"d{key}"], atol=1e-15)
        assert np.abs(gradients[f"d{key}"]).max() <= 5


def test_the_gradients_of_optimize_are_those_of_its_loss():
    draw = np.random.RandomState(0).randn
    shapes = {"Wax": (3, 4), "Waa": (3, 3), "Wya": (4, 3), "b": (3, 1), "by": (4, 1)}
    parameters = {key: draw(*shape) for key, shape in shapes.items()}
    a_prev = draw(3, 1)

    def loss(changed):
        return optimize([None, 2, 1], [2, 1, 0], a_prev, changed, learning_rate=0)[0]

    _, gradients, _ = optimize([None, 2, 1], [2, 1, 0], a_prev, parameters, learning_rate=0)
    for key, array in parameters.items():
        for place in np.ndindex(array.shape):
            push = np.zeros_like(array)
            push[place] = 1e-6
            ends = [loss({**parameters, key: array + sign * push}) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / 2e-6
            assert gradients[f"d{key}"][place] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def reports(text):
    """Iteration → smoothed loss and names, of what `model` prints."""
    found = {}
    for block in text.strip().split("\n\n"):
        head, *names = block.split("\n")
        iteration, loss = re.fullmatch(r"Iteration: (\d+), Loss: (.*)", head).groups()
        found[int(iteration)] = (loss, names)
    return found


def dinosaurs():
    if not DINOS.exists():
        pytest.skip(f"no list of dinosaurs: {DINOS}")
    content = DINOS.read_bytes()
    assert hashlib.sha256(content).hexdigest() == DINOS_SHA256
    return content.decode().split("\n")


FIRST_NAMES = [
    *("Nkzxwtdmfqoeyhsqwasjkjvu", "Kneb", "Kzxwtdmfqoeyhsqwasjkjvu", "Neb"),
    *("Zxwtdmfqoeyhsqwasjkjvu", "Eb", "Xwtdmfqoeyhsqwasjkjvu"),
]


def test_the_first_step_of_training_on_dinosaurs(capsys):
    model(
        ["Turiasaurus"], CHARACTERS, NUMBERS, num_iterations=1
    )  # with it the shuffled list begins
    assert reports(capsys.readouterr().out) == {0: ("23.087336", FIRST_NAMES)}


def test_training_on_dinosaurs(capsys):
    _, last = model(dinosaurs(), CHARACTERS, NUMBERS, num_iterations=4001)
    found = reports(capsys.readouterr().out)
    assert {iteration: loss for iteration, (loss, _) in found.items()} == {
        0: "23.087336",
        2000: "27.884160",
        4000: "25.901815",
    }
    assert found[0][1] == FIRST_NAMES
    assert found[2000][1] == [
        *("Liusskeomnolxeros", "Hmdaairus", "Hytroligoraurus", "Lecalosapaus"),
        *("Xusicikoraurus", "Abalpsamantisaurus", "Tpraneronxeros"),
    ]
    assert last == found[4000][1][-1] + "\n"


@pytest.mark.slow
def test_training_on_dinosaurs_to_the_end(capsys):
    model(dinosaurs(), CHARACTERS, NUMBERS, num_iterations=34001)
    found = reports(capsys.readouterr().out)
    assert float(found[22000][0]) == pytest.approx(22.728886, abs=0.3)
    assert float(found[34000][0]) == pytest.approx(22.447230, abs=0.3)


def test_training_on_names_makes_the_loss_fall(capsys):
    if not NAMES.exists():
        pytest.skip(f"no list of names: {NAMES}")
    names = NAMES.read_text(encoding="utf-8").split()
    parameters, last = model(names[:1000], CHARACTERS, NUMBERS, 2001, n_a=20)
    found = reports(capsys.readouterr().out)
    assert float(found[2000][0]) < float(found[0][0]) - 2
    assert [len(names) for _, names in found.values()] == [7, 7]
    assert last.endswith("\n")
    shapes = {"Wax": (20, 27), "Waa": (20, 20), "Wya": (27, 20), "b": (20, 1), "by": (27, 1)}
    assert {key: array.shape for key, array in parameters.items()} == shapes


def test_training_follows_its_protocol(capsys):
    """The same by `optimize` alone: seeds, order, the state carried from name to name."""
    names = ["Ada", "  grace ", "", "alan", "edsger"]
    parameters, _ = model(names, CHARACTERS, NUMBERS, 9, n_a=6, dino_names=2)
    draw = np.random.RandomState(1).randn
    mine = {"Wax": draw(6, 27) * 0.01, "Waa": draw(6, 6) * 0.01, "Wya": draw(27, 6) * 0.01,
            "b": np.zeros((6, 1)), "by": np.zeros((27, 1))}  # fmt: skip
    order = ["ada", "grace", "alan", "edsger"]
    np.random.RandomState(0).shuffle(order)
    a_prev, smooth = np.zeros((6, 1)), 2 * np.log(27)
    for iteration in range(9):
        ix = [NUMBERS[character] for character in order[iteration % 4]]
        loss, _, a_prev = optimize([None, *ix], [*ix, 0], a_prev, mine)
        if iteration == 0:
            first = 0.999 * smooth + 0.001 * loss
    for key, array in parameters.items():
        np.testing.assert_allclose(array, mine[key], rtol=1e-9, atol=1e-12)
    ((loss, names),) = reports(capsys.readouterr().out).values()
    assert loss == f"{first:f}"
    assert len(names) == 2


def test_verbose_tells_the_name_that_is_read(capsys):
    model(["ab"], CHARACTERS, NUMBERS, 1, n_a=3, dino_names=1, verbose=True)
    assert "'ab', X = [None, 1, 2], Y = [1, 2, 0]" in capsys.readouterr().out


def test_the_global_generator_is_left_alone(capsys):
    np.random.seed(11)
    expected = np.random.rand()
    np.random.seed(11)
    model(["ab"], CHARACTERS, NUMBERS, 2, n_a=3)
    (parameters,) = drawn(24)
    sample(parameters, NUMBERS, 0)
    assert np.random.rand() == expected


def test_wrong_arguments_get_a_sentence():
    a_prev, parameters = drawn(1, [(100, 1)])
    with pytest.raises(InputError, match="not negative; found -1"):
        clip({}, -1)
    with pytest.raises(InputError, match="dictionary of arrays by name; found a list"):
        clip([a_prev], 5)
    with pytest.raises(InputError, match="need b, of shape"):
        sample({key: parameters[key] for key in ("Waa", "Wax", "Wya", "by")}, NUMBERS, 0)
    narrow = {**parameters, "Wax": parameters["Wax"][:, :9]}
    with pytest.raises(InputError, match=r"Wax has shape \(100, 9\); expected \(n_a, n_y\)"):
        sample(narrow, NUMBERS, 0)
    with pytest.raises(InputError, match="a number for the newline"):
        sample(parameters, {"a": 1}, 0)
    with pytest.raises(InputError, match="found 6 and 5"):
        optimize(X, Y[:5], a_prev, parameters)
    with pytest.raises(InputError, match="found 0 and 0"):
        optimize([], [], a_prev, parameters)
    with pytest.raises(InputError, match="numbers from 0 to 26; found 27"):
        optimize([27], [1], a_prev, parameters)
    with pytest.raises(InputError, match=r"a_prev has shape \(5, 1\); .*n_a = 100"):
        optimize(X, Y, a_prev[:5], parameters)
    with pytest.raises(InputError, match="found none"):
        model(["", " "], CHARACTERS, NUMBERS)
    with pytest.raises(InputError, match="one text"):
        model("ada\ngrace", CHARACTERS, NUMBERS)
    with pytest.raises(InputError, match="no number for '-', '7'"):
        model(["r2-d7"], CHARACTERS, {**NUMBERS, "2": 2})
