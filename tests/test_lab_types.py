"""The types of networks: how examples are laid out, and that the tasks are learned."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("babel")

from unrolled import InputError, cells, lab
from unrolled.backends import reference
from unrolled.lab.types import locales, tasks
from unrolled.lab.types.examples import DRAWN
from unrolled.lab.types.task import END, Effort

TASKS = {
    "kinds": tasks.kinds_of_characters,
    "languages": locales.languages_of_words,
    "countries": locales.names_of_countries,
    "characters": tasks.next_characters,
    "verbs": tasks.past_tenses,
    "dates": locales.dates_in_words,
}
NAMES = Path(__file__).parent.parent.parent / "shared" / "data" / "names_18_languages"


def read(x):
    """The numbers of one-hot inputs, (T, B); −1 where nothing is read."""
    return np.where(x.any(-1), x.argmax(-1), -1).tolist()


# layouts, by hand


def test_one_to_one():
    given = lab.one_to_one([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]], [1, 0, 2])
    assert given.x.tolist() == [[[1, 2], [3, 4], [0, 0]]]
    assert given.targets.tolist() == [[1, 0, 2]]
    assert given.counts.tolist() == [[True] * 3]
    assert given.lengths.tolist() == [1, 1, 1]


def test_many_to_many():
    given = lab.many_to_many([[2, 0, 1], [1]], [[0, 1, 2], [2]], 3)
    assert read(given.x) == [[2, 1], [0, -1], [1, -1]]
    assert given.targets.tolist() == [[0, 2], [1, 0], [2, 0]]
    assert given.counts.tolist() == [[True, True], [True, False], [True, False]]
    assert given.lengths.tolist() == [3, 1]


def test_many_to_one():
    given = lab.many_to_one([[2, 0, 1], [1]], [4, 3], 3)
    assert read(given.x) == [[2, 1], [0, -1], [1, -1]]
    assert given.counts.tolist() == [[False, True], [False, False], [True, False]]
    assert given.targets[given.counts].tolist() == [3, 4]


def test_one_to_many_feeds_the_true_outputs_back():
    given = lab.one_to_many([1, 0], [[2, 0, 1], [1]], 2, 3)
    assert given.x.shape == (3, 2, 5)  # what is given, then the symbol of the step before
    assert read(given.x) == [[1, 0], [2 + 2, -1], [2 + 0, -1]]
    assert given.targets[given.counts].tolist() == [2, 1, 0, 1]
    assert given.lengths.tolist() == [3, 1]


def test_sequence_to_sequence_reads_from_the_end_and_writes():
    given = lab.sequence_to_sequence([[0, 1, 1], [2]], [[3, 1], [0, 2]], 3, 4)
    assert read(given.before.x) == [[1, 2], [1, -1], [0, -1]]
    assert given.before.lengths.tolist() == [3, 1]
    assert read(given.x) == [[0, 0], [1 + 3, 1 + 0]]
    assert given.targets.tolist() == [[3, 0], [1, 2]]
    assert given.counts.all()


@pytest.mark.parametrize("kind", DRAWN)
def test_the_drawing_of_a_type(kind):
    drawn = lab.drawing(kind, cells.gru)
    inputs = sum(words is not None for words in drawn.inputs)
    outputs = sum(words is not None for words in drawn.outputs)
    first, last = re.fullmatch(r"(one|many|sequence) to (one|many|sequence)", kind).groups()
    assert (inputs == 1) == (first == "one")
    assert (outputs == 1) == (last == "one")
    svg = str(lab.unrolled_graph(drawn))
    assert svg.count('data-kind="cell"') == drawn.steps
    assert svg.count('data-kind="feedback"') == len(drawn.feedback)


# the model


def a_batch():
    return lab.sequence_to_sequence([[0, 1, 1], [2], [1, 2]], [[3, 1], [0, 2, 1], [1]], 3, 4)


@pytest.mark.parametrize("cell", [cells.simple, cells.gru, cells.lstm], ids=lambda cell: cell.name)
def test_gradients_are_those_of_differences(cell):
    batch = a_batch()
    model = lab.Model.init(cell, batch, 4, hidden_size=3, rng=0)
    _, gradients = model.loss(batch)
    assert len(gradients) == len(model.parameters)
    for array, gradient in zip(model.parameters, gradients, strict=True):
        assert gradient.shape == array.shape
        for place in [*np.ndindex(array.shape)][:: max(1, array.size // 4)]:
            before, step = array[place], 1e-6
            array[place] = before + step
            above, _ = model.loss(batch)
            array[place] = before - step
            below, _ = model.loss(batch)
            array[place] = before
            difference = (above - below) / (2 * step)
            assert gradient[place] == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_a_ragged_batch_equals_its_examples_alone():
    sources, targets = [[0, 1, 1], [2], [1, 2]], [[3, 1], [0, 2, 1], [1]]
    batch = a_batch()
    model = lab.Model.init(cells.lstm, batch, 4, hidden_size=5, rng=0)
    together = model.probabilities(batch)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        alone = model.probabilities(lab.sequence_to_sequence([source], [target], 3, 4))
        np.testing.assert_allclose(together[: len(target), row], alone[:, 0], rtol=1e-12)


def test_probabilities_sum_to_one_and_the_loss_is_their_logarithm():
    batch = a_batch()
    model = lab.Model.init(cells.gru, batch, 4, hidden_size=5, rng=0)
    probabilities = model.probabilities(batch)
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    chosen = np.take_along_axis(probabilities, batch.targets[..., None], -1)[..., 0]
    assert model.loss(batch)[0] == pytest.approx(-np.log(chosen[batch.counts]).mean())


def test_writing_feeds_back_what_was_written():
    batch = a_batch()
    model = lab.Model.init(cells.lstm, batch, 4, hidden_size=5, rng=1)
    for row, written in enumerate(model.write(batch, end=-1, longest=6)):
        assert len(written) == 6  # there is no end to write
        sources = [[[0, 1, 1], [2], [1, 2]][row]]
        again = model.probabilities(lab.sequence_to_sequence(sources, [written], 3, 4))
        assert again[:, 0].argmax(-1).tolist() == written
    likeliest = model.write(batch, end=-1, longest=1)
    shorter = model.write(batch, end=likeliest[0][0], longest=6)
    assert shorter[0] == []


def test_temperature_sharpens_and_flattens():
    batch = lab.one_to_many([0] * 4000, [[0]] * 4000, 1, 3)
    model = lab.Model.init(cells.simple, batch, 3, hidden_size=4, rng=0)
    model.W *= 4
    p = model.probabilities(batch)[0, 0]
    for temperature in (0.5, 1.0, 2.0):
        drawn = model.write(batch, end=-1, longest=1, temperature=temperature, rng=0)
        found = np.bincount(np.ravel(drawn), minlength=3) / 4000
        expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        np.testing.assert_allclose(found, expected, atol=0.03)
    with pytest.raises(InputError, match="temperature is 0 or more"):
        model.write(batch, end=-1, temperature=-1)


def test_adam_takes_steps_of_the_rate_and_shortens_long_gradients():
    array = np.array([1.0, -2.0])
    adam = lab.Adam([array], largest=1.0)
    adam.step([np.array([300.0, -400.0])], rate=0.1)
    np.testing.assert_allclose(array, [0.9, -1.9], atol=1e-6)
    np.testing.assert_allclose(adam.moments[0][0], [0.1 * 0.6, -0.1 * 0.8], atol=1e-9)


# the tasks


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_is_held_out_is_not_learned_from(task):
    one = task()
    assert len(one.held_out) >= 20
    assert one.training
    if one.kind != "one to many":  # there many names begin with one language
        assert {given for given, _ in one.held_out}.isdisjoint(given for given, _ in one.training)
    assert one.kind in DRAWN
    assert one.training == task().training
    assert one.drawing(cells.gru) == lab.drawing(one.kind, cells.gru)


def test_learning_is_the_same_every_time_and_lowers_the_loss():
    task = replace(tasks.past_tenses(), effort=Effort(16, 40))
    losses = [task.learn(task.model(cells.gru)) for _ in range(2)]
    assert losses[0] == losses[1]
    assert np.mean(losses[0][-5:]) < np.mean(losses[0][:5]) - 0.3
    other = task.learn(task.model(cells.gru, rng=1))
    assert other != losses[0]


def test_kernels_and_reference_learn_alike():
    task = replace(tasks.past_tenses(), effort=Effort(16, 4))
    kernels, plain = task.model(), task.model()
    plain.run = reference.run
    np.testing.assert_allclose(task.learn(kernels), task.learn(plain), rtol=1e-9)


def test_what_a_model_says():
    task = replace(tasks.kinds_of_characters(), effort=Effort(8, 2))
    assert task.answer(task.model(), "A") in task.symbols
    task = replace(tasks.next_characters(), effort=Effort(8, 2))
    assert len(task.answer(task.model(), "the assign")) == 10
    task = replace(tasks.past_tenses(), effort=Effort(8, 2))
    assert END not in task.answer(task.model(), "sing", temperature=1.0, rng=0)


def test_the_baseline_is_the_commonest_symbol():
    task = tasks.kinds_of_characters()
    kinds = [kind for _, kind in task.held_out]
    assert task.baseline == kinds.count("small letter") / len(kinds)


def test_errors_are_sentences():
    task = tasks.past_tenses()
    with pytest.raises(InputError, match="'ß' in 'groß' occurs in no training pair; known are 'a"):
        task.answer(task.model(), "groß")
    with pytest.raises(InputError, match="the text has 5 characters; it needs 800 or more"):
        tasks.next_characters("short")
    with pytest.raises(InputError, match="at most 36500; found 40000"):
        locales.dates_in_words(40000)
    with pytest.raises(InputError, match="a task needs 20 pairs or more; found 1"):
        locales.languages_of_words([("eins", "German")])
    with pytest.raises(InputError, match="no type 'few to many' of networks; there are one to one"):
        lab.drawing("few to many", cells.gru)


def test_without_babel_its_tasks_name_the_remedy_and_the_others_work():
    program = (
        "import sys; sys.modules['babel'] = None\n"
        "from unrolled import lab\n"
        "print(lab.past_tenses().kind)\n"
        "try:\n    lab.dates_in_words\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        "sequence to sequence\n"
        'lab.dates_in_words needs babel, which is not installed; run: pip install "unrolled[lab]"\n'
    )


LEARNED = {"kinds": 0.75, "languages": 0.4, "countries": 0.38, "characters": 0.4, "verbs": 0.65}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "accuracy"), LEARNED.items())
def test_a_task_is_learned(name, accuracy):
    task = TASKS[name]()
    model = task.model()
    task.learn(model)
    assert task.accuracy(model) > accuracy > 1.4 * task.baseline


@pytest.mark.slow
def test_verbs_that_were_learned_are_known():
    task = tasks.past_tenses()
    model = task.model()
    task.learn(model)
    known = [task.answer(model, verb) == "".join(past).strip() for verb, past in task.training]
    assert np.mean(known) > 0.95


@pytest.mark.slow
def test_dates_that_were_never_seen_are_written_right():
    task = locales.dates_in_words()
    model = task.model()
    task.learn(model)
    said = [task.answer(model, words) for words, _ in task.held_out]
    right = ["".join(date).strip() for _, date in task.held_out]
    assert np.mean([a == b for a, b in zip(said, right, strict=True)]) > 0.9
    assert task.bits(model) < 0.3


@pytest.mark.slow
def test_languages_of_real_names():
    files = [path for path in NAMES.glob("*.txt") if path.stem not in ("SOURCE", "LICENSE")]
    if not files:
        pytest.skip("the names are not there")
    names = [
        (name, file.stem)
        for file in sorted(files)
        for name in file.read_text(encoding="utf-8").split("\n")
        if name.strip()
    ]
    task = locales.languages_of_words(names)
    model = task.model()
    task.learn(model)
    assert len(task.symbols) == 18
    assert task.accuracy(model) > task.baseline + 0.15
