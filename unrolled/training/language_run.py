"""A language model's run: its settings, what its config.json holds, and the way back from there.

The configuration carries the cell's equations and the vocabulary, so a run folder alone is enough
to sample from its model, on any machine and with a cell of its owner's own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

import torch

from .. import Cell
from ..data.text import TextError, builtin_text, fingerprint, read_texts, split_held_out
from ..data.vocabulary import Vocabulary, build_vocabulary, vocabulary_from_config
from ..errors import InputError
from ..models.language_model import LanguageModel
from .checkpoint import (
    CheckpointError,
    RunFolder,
    below_prefix,
    load_model_tensors,
)
from .language import TrainingSettings
from .schedule import Budget, LearningRate

TASK = "language model"
_DEFAULT_MINUTES = 2.0
_DEFAULT_RATES = {"adam": 0.01, "sgd": 0.5}


@dataclass(frozen=True)
class LanguageSettings:
    """Everything about a run that a user chooses, besides the text and the cell.

    Without minutes and epochs the budget is two minutes; without a learning rate it is 0.01 for
    Adam and 0.5 for SGD. The other arguments are those of `build_vocabulary`, `LanguageModel`,
    `TrainingSettings` and `make_optimizer`.
    """

    level: str = "character"
    embedding: int = 64
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.2
    tied: bool = True
    minutes: float | None = None
    epochs: int | None = None
    batch: int = 16
    window: int = 32
    optimizer: str = "adam"
    learning_rate: float | None = None
    weight_decay: float = 0.1
    clip: float = 0.25
    average: float = 0.995
    seed: int = 1
    checkpoint_every: float = 30.0

    def __post_init__(self) -> None:
        for name in ("batch", "window"):
            if getattr(self, name) < 1:
                raise InputError(f"The {name} must be at least 1, not {getattr(self, name)}.")
        for name in ("clip", "checkpoint_every"):
            value = getattr(self, name)
            if not value > 0:
                words = name.replace("_", " ")
                raise InputError(f"The {words} must be more than 0, not {value}.")
        if not 0 <= self.weight_decay < inf:
            raise InputError(f"The weight decay must be 0 or more, not {self.weight_decay}.")

    def training(self) -> TrainingSettings:
        """The settings as the training loop takes them.

        Raises:
            InputError: One is outside its range.
        """
        minutes = self.minutes
        if minutes is None and self.epochs is None:
            minutes = _DEFAULT_MINUTES
        rate = self.learning_rate
        if rate is None:
            rate = _DEFAULT_RATES.get(self.optimizer, 1.0)
        return TrainingSettings(
            budget=Budget(minutes=minutes, epochs=self.epochs),
            batch_size=self.batch,
            window=self.window,
            optimizer=self.optimizer,
            learning_rate=LearningRate(rate),
            weight_decay=self.weight_decay,
            clip=self.clip,
            average=self.average,
            checkpoint_seconds=self.checkpoint_every,
        )


@dataclass(frozen=True)
class TextSource:
    """Where a run's text comes from.

    Args:
        files: The files' full paths, in order; none for the built-in text.
        fingerprint: A digest of the text, by which a resumed run knows it again.
    """

    files: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class LanguageRun:
    """A language model's run, as its config.json describes it.

    Args:
        cell: The recurrent cell.
        vocabulary: The vocabulary.
        settings: What the user chose.
        source: Where the text comes from.
    """

    cell: Cell
    vocabulary: Vocabulary
    settings: LanguageSettings
    source: TextSource

    def to_config(self) -> dict[str, Any]:
        """What `RunFolder.write_config` writes; `from_config` reads it."""
        return {
            "task": TASK,
            "cell": {"name": self.cell.name, "text": self.cell.text},
            "settings": asdict(self.settings),
            "text": asdict(self.source),
            "vocabulary": self.vocabulary.to_config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> "LanguageRun":
        """The run that a configuration describes.

        Args:
            config: What `RunFolder.read_config` gave.
            folder: The run's folder, for messages.

        Raises:
            CheckpointError: The configuration is another task's, or parts of it are missing.
            UnrolledError: Its cell or its vocabulary cannot be read.
        """
        if config.get("task") != TASK:
            raise CheckpointError(
                f"The run in {folder} is of a {config.get('task')!r}, not of a {TASK}."
            )
        try:
            return cls(
                cell=Cell.parse(config["cell"]["text"]),
                vocabulary=vocabulary_from_config(config["vocabulary"]),
                settings=LanguageSettings(**config["settings"]),
                source=TextSource(
                    files=tuple(config["text"]["files"]), fingerprint=config["text"]["fingerprint"]
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{folder / 'config.json'} is damaged: {type(error).__name__} {error}."
            ) from None

    def build_model(self) -> LanguageModel:
        """The model with fresh weights, the same ones for the same seed."""
        torch.manual_seed(self.settings.seed)
        return LanguageModel(
            self.vocabulary.size,
            self.settings.embedding,
            self.settings.hidden,
            num_layers=self.settings.layers,
            cell=self.cell,
            dropout=self.settings.dropout,
            tied=self.settings.tied,
        )


@dataclass(frozen=True)
class LanguageText:
    """A run's text in its two parts.

    Args:
        training: The part to train on.
        held_out: The part that follows, held out.
        source: Where it comes from.
    """

    training: str
    held_out: str
    source: TextSource

    @classmethod
    def read(cls, files: tuple[str, ...]) -> "LanguageText":
        """Reads and splits the files' text, or the built-in one if there are none.

        Raises:
            TextError: A file cannot be read, or the text is too short.
        """
        text = read_texts([Path(file) for file in files]) if files else builtin_text()
        training, held_out = split_held_out(text)
        paths = tuple(str(Path(file).resolve()) for file in files)
        return cls(training, held_out, TextSource(paths, fingerprint(text)))


def new_run(
    folder: RunFolder, cell: Cell, text: LanguageText, settings: LanguageSettings
) -> LanguageRun:
    """A new run; nothing is written yet.

    Raises:
        CheckpointError: The folder is not free.
        TextError: The text has a vocabulary of one, or the level is unknown.
    """
    folder.check_free()
    vocabulary = build_vocabulary(settings.level, text.training, text.held_out)
    return LanguageRun(cell, vocabulary, settings, text.source)


def resumed_run(
    folder: RunFolder,
    files: tuple[str, ...],
    cell: Cell | None,
    chosen: Mapping[str, Any],
) -> tuple[LanguageRun, LanguageText]:
    """The run in a folder, to go on with, and its text.

    Args:
        folder: The run's folder.
        files: The text's files if they are named again; they may have moved.
        cell: The cell if it is named again.
        chosen: Settings that are named again. Only the budget and the time between checkpoints
            may change.

    Raises:
        CheckpointError: There is no run, or it was begun with another cell or other settings.
        TextError: The text is not the one the run was begun with.
    """
    run = LanguageRun.from_config(folder.read_config(), folder.path)
    text = LanguageText.read(files or run.source.files)
    if text.source.fingerprint != run.source.fingerprint:
        raise TextError(
            f"The text is not the one that the run in {folder.path} was begun with; give the "
            "same files, or begin a new run."
        )
    if cell is not None and cell.text != run.cell.text:
        raise CheckpointError(
            f"The run in {folder.path} was begun with another cell, {run.cell.name}; leave --cell "
            "out, or begin a new run."
        )
    settings = _with_changes(folder, run.settings, chosen)
    return LanguageRun(run.cell, run.vocabulary, settings, text.source), text


def _with_changes(
    folder: RunFolder, settings: LanguageSettings, chosen: Mapping[str, Any]
) -> LanguageSettings:
    values = asdict(settings)
    if chosen.keys() & {"minutes", "epochs"}:
        values["minutes"] = values["epochs"] = None
    for name, value in chosen.items():
        if name not in ("minutes", "epochs", "checkpoint_every") and values[name] != value:
            option = name.replace("_", "-")
            raise CheckpointError(
                f"The run in {folder.path} was begun with --{option} {values[name]}, not {value}; "
                f"leave --{option} out, or begin a new run."
            )
        values[name] = value
    return LanguageSettings(**values)


def load_language_model(folder: RunFolder) -> tuple[LanguageModel, LanguageRun]:
    """A run's best model so far, in evaluation mode, and the run.

    Before the first evaluation there is no best one; then it is the last one.

    Raises:
        CheckpointError: There is no run, or it is damaged or foreign.
    """
    run = LanguageRun.from_config(folder.read_config(), folder.path)
    model = run.build_model()
    name, prefix = ("best", "model") if folder.has("best") else ("last", "average")
    tensors, _ = folder.read(name)
    load_model_tensors(model, below_prefix(prefix, tensors))
    return model.eval(), run


def setting_names() -> tuple[str, ...]:
    """The names of all settings."""
    return tuple(setting.name for setting in fields(LanguageSettings))
