"""What the commands for language models do: train one and watch it, and write with one."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .. import cells
from ..data.text import TextError
from ..data.vocabulary import Vocabulary
from ..decode.sampling import check_settings, sample
from ..models.language_model import LanguageModel
from ..training.baselines import witten_bell_bits, xz_bits
from ..training.checkpoint import RunFolder
from ..training.language import Evaluated, LanguageTrainer
from ..training.language_run import (
    LanguageRun,
    LanguageSettings,
    LanguageText,
    load_language_model,
    new_run,
    resumed_run,
)
from .cell_argument import find_cell
from .display import TrainingDisplay, Units

_MOST_FOR_BASELINES = 5_000_000  # characters; beyond, they would take minutes
_ROWS_BETWEEN_SAMPLES = 3
_SAMPLE_LENGTH = {"character": 160, "byte": 160, "word": 40}
_SAMPLE_TEMPERATURE = 0.7
_INTERRUPTED = 130


def train_language_model(
    out: Path,
    files: tuple[str, ...],
    cell: str | None,
    chosen: Mapping[str, Any],
    resume: bool,
    began: float,
) -> None:
    """Trains a language model in the folder `out`, and reports on it.

    Args:
        out: The run's folder.
        files: The text's files; none for the built-in text, or the run's own on resuming.
        cell: Name or file of the cell.
        chosen: The settings that the user has chosen.
        resume: Whether to go on with the run in the folder.
        began: When the command began, by `time.perf_counter`; it counts into the minutes.

    Raises:
        UnrolledError: The input is no good; nothing was overwritten.
        SystemExit: The user interrupted the training; a checkpoint was saved.
    """
    folder = RunFolder(out)
    given = None if cell is None else find_cell(cell)
    if resume:
        run, text = resumed_run(folder, files, given, chosen)
    else:
        folder.check_free()
        text = LanguageText.read(files)
        run = new_run(folder, given or cells.lstm, text, LanguageSettings(**chosen))
    training = run.vocabulary.encode(text.training)
    held_out = run.vocabulary.encode(text.held_out)
    settings = run.settings.training()
    model = run.build_model()
    spent = time.perf_counter() - began
    trainer = LanguageTrainer(model, training, held_out, settings, folder, seconds=spent)
    folder.write_config(run.to_config())

    console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    console.print(_description(run, model, text))
    baselines = _baselines(text)
    units = Units(
        level=run.vocabulary.level,
        tokens=len(held_out),
        characters=len(text.held_out),
        unencoded_bits=run.vocabulary.unencoded_bits(text.held_out),
        characters_per_token=len(text.training) / len(training),
    )
    with _stopping_at_signals(trainer) as stopped, TrainingDisplay(console, units) as display:
        for event in trainer.run():
            if isinstance(event, Evaluated):
                display.evaluated(event)
                if len(trainer.history) % _ROWS_BETWEEN_SAMPLES == 0:
                    display.sample(_short_sample(trainer, run.vocabulary))
            else:
                display.step(event)
    if stopped:
        console.print(
            f"Stopped and saved at step {trainer.progress.step}; go on with\n"
            f"    unrolled train lm --out {out} --resume",
        )
        raise SystemExit(_INTERRUPTED)
    _report(console, folder, trainer, units, baselines)


def _description(run: LanguageRun, model: LanguageModel, text: LanguageText) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    settings = run.settings
    source = (
        ", ".join(Path(file).name for file in run.source.files) or "Python's language reference"
    )
    layers = "1 layer" if settings.layers == 1 else f"{settings.layers} layers"
    return (
        f"{source}: {len(text.training):,} characters to train on, "
        f"{len(text.held_out):,} held out; {run.vocabulary.size:,} {run.vocabulary.level}s\n"
        f"{run.cell.name}, {layers} of {settings.hidden} units, {parameters:,} parameters"
    )


def _baselines(text: LanguageText) -> dict[str, float]:
    if len(text.training) > _MOST_FOR_BASELINES:
        return {}
    return {
        "xz -9e": xz_bits(text.training, text.held_out),
        "order-5 characters": witten_bell_bits(text.training, text.held_out),
    }


def _report(
    console: Console,
    folder: RunFolder,
    trainer: LanguageTrainer,
    units: Units,
    baselines: dict[str, float],
) -> None:
    best = min(entry["held_out"] for entry in trainer.history)
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("this model", f"{units.bits_per_character(best):.3f}", style="bold")
    for name, bits in baselines.items():
        table.add_row(name, f"{bits:.3f}")
    console.print("\nHeld-out text, bits per character:")
    console.print(table)
    if units.level == "word":
        console.print(f"Perplexity per word: {units.figure(best):.2f}")
    if not baselines:
        console.print(
            "The baselines are left out: they take too long for a text of more than "
            f"{_MOST_FOR_BASELINES:,} characters.",
        )
    console.print(f"Write with it:\n    unrolled sample {folder.path}")


def _short_sample(trainer: LanguageTrainer, vocabulary: Vocabulary) -> str:
    # A generator of its own: a sample must not change what training draws.
    generator = torch.Generator().manual_seed(trainer.progress.step)
    length = _SAMPLE_LENGTH[vocabulary.level]
    with trainer.average.in_use():
        tokens = sample(
            trainer.model,
            _beginning(vocabulary),
            length,
            temperature=_SAMPLE_TEMPERATURE,
            generator=generator,
            exclude=_excluded(vocabulary),
        )
        return vocabulary.decode(tokens).strip("\n")


@contextmanager
def _stopping_at_signals(trainer: LanguageTrainer) -> Iterator[list[int]]:
    """Within the block the first Ctrl-C asks the trainer to stop; a second one ends at once.

    Yields:
        A list that holds the signal's number once one has come.
    """
    came: list[int] = []
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        trainer.stop()
        restore()

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    for number in earlier:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        restore()


def write_sample(
    run_path: Path,
    prompt: str | None,
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
) -> None:
    """Writes a sample to standard output, each piece as soon as it is drawn.

    Args:
        run_path: The run's folder.
        prompt: The text to go on from, written first; none for the beginning of a line.
        length: How many tokens to draw.
        temperature: See `unrolled.decode.sampling`, as for `top_k` and `top_p`.
        top_k: Draw from so many of the likeliest tokens.
        top_p: Draw from the likeliest tokens of this probability.
        seed: Seed of chance; without one, every call writes another text.

    Raises:
        UnrolledError: The run cannot be read, the prompt holds characters that the model never
            saw, or a setting is outside its range.
    """
    check_settings(temperature, top_k, top_p)
    model, run = load_language_model(RunFolder(run_path))
    vocabulary = run.vocabulary
    shown = vocabulary.encode(prompt).tolist() if prompt else []
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    drawn = sample(
        model,
        shown or _beginning(vocabulary),
        length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
        exclude=_excluded(vocabulary),
    )
    if isinstance(sys.stdout, TextIOWrapper):  # it may lack some of the text's characters
        sys.stdout.reconfigure(errors="replace")
    for piece in vocabulary.stream(chain(shown, drawn)):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _beginning(vocabulary: Vocabulary) -> list[int]:
    """A prompt for text that begins: a line's end, where the vocabulary has one."""
    try:
        tokens: list[int] = vocabulary.encode("\n").tolist()
    except TextError:
        tokens = [0]
    return tokens


def _excluded(vocabulary: Vocabulary) -> list[int]:
    return [] if vocabulary.unknown is None else [vocabulary.unknown]
