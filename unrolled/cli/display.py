"""What a person sees of a language model's training: a bar, a row an evaluation, a sample."""

from dataclasses import dataclass
from math import exp, log
from types import TracebackType

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from ..training.language import Evaluated, StepDone


@dataclass(frozen=True)
class Units:
    """How losses, in nats per token, read as figures that compare across levels.

    Args:
        level: The vocabulary's level.
        tokens: Held-out tokens.
        characters: Held-out characters.
        unencoded_bits: Cost of spelling out what the tokens leave out.
        characters_per_token: In the training part.
    """

    level: str
    tokens: int
    characters: int
    unencoded_bits: float
    characters_per_token: float

    @property
    def name(self) -> str:
        """What `figure` gives."""
        return "perplexity" if self.level == "word" else "bits/char"

    def figure(self, held_out: float) -> float:
        """Perplexity of words; bits per character otherwise."""
        return exp(held_out) if self.level == "word" else self.bits_per_character(held_out)

    def bits_per_character(self, held_out: float) -> float:
        """Bits per held-out character, with what the tokens leave out."""
        return (held_out * self.tokens / log(2) + self.unencoded_bits) / self.characters


class TrainingDisplay:
    """Shows a run's events on a console; without a terminal, only the rows and samples.

    Args:
        console: Where to.
        units: How to read losses.
    """

    def __init__(self, console: Console, units: Units) -> None:
        self._console = console
        self._units = units
        self._held_out: float | None = None
        self._progress = Progress(
            BarColumn(bar_width=8),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            console=console,
            refresh_per_second=4,  # each refresh takes time from training
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1.0)

    def __enter__(self) -> "TrainingDisplay":
        header = f"{'epoch':>7}{'time':>9}{'training loss':>16}{'held-out loss':>16}"
        self._console.print(f"{header}{self._units.name:>13}", style="bold")
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, event: StepDone) -> None:
        """Moves the bar."""
        held_out = ""
        if self._held_out is not None:
            figure = self._units.figure(self._held_out)
            held_out = f"  held-out {self._held_out:.2f}  {figure:.2f} {self._units.name}"
        speed = event.tokens_per_second * self._units.characters_per_token
        description = (
            f"loss {event.loss:.2f}{held_out}  {speed / 1000:.1f}k chars/s  "
            f"{clock(event.seconds_left)} left"
        )
        self._progress.update(self._task, completed=event.used, description=description)

    def evaluated(self, event: Evaluated) -> None:
        """Writes a row."""
        self._held_out = event.held_out
        row = (
            f"{event.epoch:>7.1f}{clock(event.seconds):>9}{event.training:>16.3f}"
            f"{event.held_out:>16.3f}{self._units.figure(event.held_out):>13.3f}"
        )
        self._console.print(row, style="green" if event.best else "")

    def sample(self, text: str) -> None:
        """Writes a sample."""
        self._console.print(Padding(Text(text, style="dim"), (0, 4), expand=False))


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
