from collections import Counter
from dataclasses import replace
from itertools import count, pairwise
from math import log, log2
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unrolled import cells
from unrolled.data.text import TextError, builtin_text
from unrolled.errors import InputError
from unrolled.models.language_model import LanguageModel
from unrolled.training.checkpoint import CheckpointError, RunFolder
from unrolled.training.language import (
    Evaluated,
    LanguageTrainer,
    StepDone,
    TrainingError,
    mean_loss,
)
from unrolled.training.language_run import (
    LanguageRun,
    LanguageSettings,
    LanguageText,
    load_language_model,
    new_run,
    resumed_run,
)
from unrolled.training.schedule import Budget, LearningRate

SMALL = LanguageSettings(embedding=8, hidden=12, epochs=2, batch=4, window=16)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(builtin_text()[:3000])
    return str(path)


def _trainer(
    folder: RunFolder, file: str, settings: LanguageSettings = SMALL, cell: str = "lstm"
) -> LanguageTrainer:
    text = LanguageText.read((file,))
    run = new_run(folder, getattr(cells, cell), text, settings)
    trainer = _trainer_of(run, text, folder)
    folder.write_config(run.to_config())
    return trainer


def _trainer_of(run: LanguageRun, text: LanguageText, folder: RunFolder) -> LanguageTrainer:
    return LanguageTrainer(
        run.build_model(),
        run.vocabulary.encode(text.training),
        run.vocabulary.encode(text.held_out),
        run.settings.training(),
        folder,
    )


def _resume(folder: RunFolder, **chosen: object) -> LanguageTrainer:
    run, text = resumed_run(folder, (), None, chosen)
    return _trainer_of(run, text, folder)


def _assert_same_run(first: RunFolder, second: RunFolder) -> None:
    """Every tensor and every number but the times of two runs' checkpoints are the same."""
    for name in ("best", "last"):
        tensors, facts = first.read(name)
        others, other_facts = second.read(name)
        assert tensors.keys() == others.keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, others[key]), key
        for some in (facts, other_facts):
            some.pop("seconds", None)
            for entry in some.get("history", []):
                entry.pop("seconds")
        assert facts == other_facts


def test_training_learns_more_than_how_often_each_character_comes(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(builtin_text()[:40_000])
    settings = replace(SMALL, hidden=48, epochs=3, batch=8, window=16, learning_rate=0.01)
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(folder, str(path), settings)
    rows = [event for event in trainer.run() if isinstance(event, Evaluated)]
    text = LanguageText.read((str(path),))
    counts, alphabet = Counter(text.training), set(text.training + text.held_out)
    unigram = -sum(
        log2((counts[c] + 1) / (len(text.training) + len(alphabet))) for c in text.held_out
    ) / len(text.held_out)
    assert len(rows) == 3
    assert min(row.held_out for row in rows) / log(2) < unigram - 1
    model, run = load_language_model(folder)
    tokens = torch.from_numpy(run.vocabulary.encode(text.training + text.held_out))
    best = min(row.held_out for row in rows)
    assert mean_loss(model, tokens, len(text.training)) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    ("cell", "optimizer", "stop_at"),
    [("lstm", "adam", 1), ("lstm", "adam", 20), ("gru", "adam", 42), ("gru", "sgd", 43)],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    tmp_path: Path, file: str, cell: str, optimizer: str, stop_at: int
) -> None:
    settings = replace(SMALL, optimizer=optimizer, layers=2)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    list(_trainer(whole, file, settings, cell).run())
    trainer = _trainer(parts, file, settings, cell)
    for event in trainer.run():
        if isinstance(event, StepDone) and event.step == stop_at:
            trainer.stop()
    assert parts.read("last")[1]["step"] == stop_at < whole.read("last")[1]["step"]
    torch.manual_seed(99)  # whatever the resuming process has drawn before
    trainer = _resume(parts)
    assert trainer.progress.step == stop_at
    list(trainer.run())
    _assert_same_run(whole, parts)


def test_a_run_that_died_goes_on_from_its_last_checkpoint(tmp_path: Path, file: str) -> None:
    settings = replace(SMALL, epochs=3)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    list(_trainer(whole, file, settings).run())
    died_at = 0
    for event in _trainer(parts, file, settings).run():
        if event.epoch > 1.5:  # abandoned without a word, as a killed process would
            died_at = event.step
            break
    checkpoint = parts.read("last")[1]
    assert checkpoint["epoch"] == 1
    assert 0 < checkpoint["step"] < died_at
    trainer = _resume(parts)
    list(trainer.run())
    _assert_same_run(whole, parts)


def test_checkpoints_come_as_often_as_asked(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(folder, file, replace(SMALL, checkpoint_every=1e-9))
    for event in trainer.run():
        # A step's own checkpoint is written after its event is taken.
        assert folder.read("last")[1]["step"] in (event.step - 1, event.step)


def test_the_state_is_carried_from_window_to_window(tmp_path: Path, file: str) -> None:
    trainer = _trainer(RunFolder(tmp_path / "run"), file, replace(SMALL, epochs=1))
    states = []
    forward = trainer.model.forward

    def recorded(tokens, state=None):
        logits, after = forward(tokens, state)
        if trainer.model.training:
            states.append((state, after))
        return logits, after

    trainer.model.forward = recorded  # type: ignore[method-assign]
    list(trainer.run())
    assert len(states) == trainer.streams.windows(16) > 5
    assert states[0][0] is None
    for (_, left), (taken, _) in pairwise(states):
        for one, other in zip(left, taken, strict=True):
            assert torch.equal(one, other)
            assert not other.requires_grad


def test_a_longer_budget_lets_a_finished_run_go_on(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(folder, file)
    list(trainer.run())
    assert trainer.finished
    assert _resume(folder).finished
    assert list(_resume(folder).run()) == []
    longer = _resume(folder, epochs=3)
    assert not longer.finished
    list(longer.run())
    assert [row["epoch"] for row in longer.history] == [1, 2, 3]


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path: Path, file: str) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    list(_trainer(whole, file).run())
    _trainer(parts, file)
    assert {path.name for path in parts.path.iterdir()} == {"config.json"}
    list(_resume(parts).run())
    _assert_same_run(whole, parts)


def test_a_budget_of_minutes_is_kept_and_ends_with_an_evaluation(
    tmp_path: Path, file: str, monkeypatch
) -> None:
    ticks = count()  # a clock on which each look takes a second
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr("unrolled.training.language.time", clock)
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(folder, file, replace(SMALL, epochs=None, minutes=3.0))
    events = list(trainer.run())
    rows = [event for event in events if isinstance(event, Evaluated)]
    assert events[-1] is rows[-1]
    assert 8 <= len(rows) <= 13
    assert 170 <= rows[-1].seconds <= 185
    used = [event.used for event in events if isinstance(event, StepDone)]
    assert used == sorted(used)
    assert load_language_model(folder)[1].settings.minutes == 3.0


def test_the_best_is_kept_apart_from_the_last(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path / "run")
    # A rate that is far too high, so that the held-out loss goes up again.
    settings = replace(SMALL, epochs=6, learning_rate=0.3, average=0.0, seed=4)
    rows = [row for row in _trainer(folder, file, settings).run() if isinstance(row, Evaluated)]
    losses = [row.held_out for row in rows]
    assert [row.best for row in rows] == [
        loss == min(losses[: place + 1]) for place, loss in enumerate(losses)
    ]
    assert folder.read("best")[1]["held_out"] == min(losses)
    assert folder.read("last")[1]["best"] == min(losses)


def test_before_any_evaluation_the_last_checkpoint_serves(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(folder, file)
    next(trainer.run())
    assert not folder.has("best")
    model, _ = load_language_model(folder)
    assert torch.equal(model.output.weight, folder.read("last")[0]["average.embedding.weight"])


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_checkpoint(
    tmp_path: Path, file: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(folder, file)
    events = trainer.run()
    while next(events).step < 3:
        pass
    torch.nn.init.constant_(trainer.model.output.weight, float("nan"))
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        next(events)
    assert folder.read("last")[1]["step"] == 0
    assert folder.read("last")[0]["model.embedding.weight"].isfinite().all()


def test_the_same_seed_gives_the_same_run_and_another_one_another(
    tmp_path: Path, file: str
) -> None:
    one, same, other = (RunFolder(tmp_path / name) for name in ("one", "same", "other"))
    list(_trainer(one, file).run())
    list(_trainer(same, file).run())
    list(_trainer(other, file, replace(SMALL, seed=2)).run())
    _assert_same_run(one, same)
    assert one.read("best")[1] != other.read("best")[1]


def test_held_out_text_is_never_trained_on(tmp_path: Path, file: str) -> None:
    text = LanguageText.read((file,))
    changed = tmp_path / "changed.txt"
    changed.write_text(text.training + text.held_out[::-1])
    one, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "other")
    list(_trainer(one, file).run())
    list(_trainer(other, str(changed)).run())
    first, second = one.read("last")[0], other.read("last")[0]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.read("best")[1] != other.read("best")[1]


@pytest.mark.parametrize(("tokens", "start"), [(900, 800), (5000, 1500), (700, 1), (40, 39)])
def test_the_held_out_loss_is_the_mean_over_every_token(tokens: int, start: int) -> None:
    torch.manual_seed(0)
    model = LanguageModel(7, 5, 6, cell=cells.lstm, dropout=0.3)
    text = torch.randint(0, 7, (tokens,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.eval()
        logits, _ = model(text[:-1, None])
        whole = F.cross_entropy(logits[start - 1 :, 0].double(), text[start:]).item()
        model.train()
    # Reading begins 256 tokens before each stretch; what came earlier has faded by then.
    assert mean_loss(model, text, start) == pytest.approx(whole, rel=1e-5)
    assert model.training


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rate = LearningRate(0.5, warmup=0.1)
    values = [rate.at(used) for used in np.linspace(0, 1, 101)]
    assert 0 < values[0] < 0.05
    assert values[10] == 0.5 == max(values)
    assert values == sorted(values[:11]) + sorted(values[11:], reverse=True)
    assert values[55] == pytest.approx(0.25)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert rate.at(1.5) == pytest.approx(0, abs=1e-12)


def test_a_budget_is_a_share_of_time_or_of_epochs() -> None:
    assert Budget(minutes=2).used(seconds=30, epochs=9) == 0.25
    assert Budget(epochs=4).used(seconds=30, epochs=1.5) == 0.375


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 1.0, "epochs": 1}, "either in minutes or in epochs"),
        ({"minutes": -1.0, "epochs": None}, "minutes must be more than 0"),
        ({"minutes": float("nan"), "epochs": None}, "minutes must be more than 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"window": -3}, "window must be at least 1"),
        ({"clip": 0.0}, "clip must be more than 0"),
        ({"checkpoint_every": float("nan")}, "checkpoint every must be more than 0"),
        ({"weight_decay": -0.1}, "weight decay must be 0 or more"),
        ({"learning_rate": 0.0}, "learning rate must be more than 0"),
        ({"optimizer": "adagrad"}, "no optimiser 'adagrad'; choose one of adam, sgd"),
        ({"average": 1.0}, "averaging must be at least 0 and below 1"),
        ({"hidden": 0}, "hidden_size must be at least 1"),
    ],
)
def test_impossible_settings_are_errors_and_write_nothing(
    tmp_path: Path, file: str, settings: dict[str, object], message: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match=message):
        _trainer(folder, file, replace(SMALL, **settings))
    assert not folder.path.exists()


def test_without_a_budget_it_is_two_minutes() -> None:
    assert LanguageSettings().training().budget == Budget(minutes=2)


def test_a_run_resumes_with_its_own_text_cell_and_settings_only(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path / "run")
    list(_trainer(folder, file).run())
    with pytest.raises(CheckpointError, match=r"begun with --hidden 12, not 13; leave --hidden"):
        resumed_run(folder, (), None, {"hidden": 13})
    with pytest.raises(CheckpointError, match="begun with another cell, lstm"):
        resumed_run(folder, (), cells.gru, {})
    other = tmp_path / "other.txt"
    other.write_text("Something else entirely.\n" * 9)
    with pytest.raises(TextError, match="not the one that the run"):
        resumed_run(folder, (str(other),), None, {})
    moved = Path(file).rename(tmp_path / "moved.txt")
    with pytest.raises(TextError, match="There is no file"):
        resumed_run(folder, (), None, {})
    run, _ = resumed_run(folder, (str(moved),), cells.lstm, {"hidden": 12, "epochs": 5})
    assert run.settings == replace(SMALL, epochs=5)
    run, _ = resumed_run(folder, (str(moved),), None, {"minutes": 1.0})
    assert run.settings == replace(SMALL, epochs=None, minutes=1.0)


@pytest.mark.parametrize("level", ["character", "byte", "word"])
@pytest.mark.parametrize("cell", ["simple", "gru", "lstm"])
def test_a_run_folder_alone_rebuilds_the_model(
    tmp_path: Path, file: str, level: str, cell: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = _trainer(
        folder, file, replace(SMALL, level=level, epochs=1, tied=level == "word"), cell
    )
    list(trainer.run())
    Path(file).unlink()
    model, run = load_language_model(folder)
    assert run.cell.name == cell
    assert not model.training
    tokens = run.vocabulary.encode("the expression")[:, None]
    with trainer.average.in_use(), torch.no_grad():
        trainer.model.eval()
        expected, _ = trainer.model(torch.from_numpy(tokens))
        assert torch.equal(model(torch.from_numpy(tokens))[0], expected)


def test_another_tasks_run_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config({"task": "tagger"})
    with pytest.raises(CheckpointError, match="is of a 'tagger', not of a language model"):
        load_language_model(folder)


@pytest.mark.parametrize("part", ["cell", "vocabulary", "settings", "text"])
def test_a_configuration_that_lacks_a_part_is_refused(tmp_path: Path, file: str, part: str) -> None:
    folder = RunFolder(tmp_path / "run")
    next(_trainer(folder, file).run())
    config = folder.read_config()
    for damaged in (None, {}, "?"):
        folder.write_config(config | {part: damaged})
        with pytest.raises((CheckpointError, TextError)):
            load_language_model(folder)


def test_weights_of_other_sizes_are_refused(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path / "run")
    next(_trainer(folder, file).run())
    config = folder.read_config()
    config["settings"]["hidden"] = 13
    folder.write_config(config)
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json"):
        load_language_model(folder)
