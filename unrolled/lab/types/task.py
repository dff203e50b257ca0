"""A task: pairs of what is given and what is right, how they become numbers, and learning them."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ...backends import cpu
from ...cell import Cell
from ...cells import lstm
from ...errors import InputError
from ...views.graph import Unrolling
from . import examples
from .examples import Examples
from .learning import Adam, Model

END = "\n"
Pair = tuple[Any, str | tuple[str, ...]]


@dataclass(frozen=True)
class Effort:
    """What is enough to learn a task in some seconds.

    Attributes:
        hidden_size: H.
        steps: how many batches are learned from.
        batch: how many pairs each has.
        rate: the length of Adam's first steps; it falls to zero on a straight line.
    """

    hidden_size: int
    steps: int
    batch: int = 32
    rate: float = 0.01


@dataclass(frozen=True, eq=False)
class Task:
    """Pairs of what is given and what is right, and how they become numbers.

        task = past_tenses()
        model = task.model()
        losses = task.learn(model)
        task.answer(model, "sing")

    Attributes:
        title: what is learned.
        kind: the type of network, a key of `examples.DRAWN`.
        training, held_out: pairs (given, right).
        symbols: what the outputs tell apart, in order.
        encode: pairs → a batch.
        effort: what is enough to learn it.
    """

    title: str
    kind: str
    training: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    symbols: tuple[str, ...]
    encode: Callable[[Sequence[Pair]], Examples]
    effort: Effort

    def model(self, cell: Cell = lstm, rng: np.random.Generator | int | None = 0) -> Model:
        """Draw a model for the task, of any cell whose sizes are all H but the input's."""
        like = self.encode(self.training[:1])
        size = self.effort.hidden_size
        return Model.init(cell, like, len(self.symbols), size, rng, cpu.run)

    def learn(self, model: Model, rng: np.random.Generator | int | None = 0) -> list[float]:
        """Learn from batches drawn from the training pairs; gives the loss of each, in nats."""
        adam, effort = Adam(model.parameters), self.effort
        losses = []
        with threadpool_limits(1, "blas"):  # so small are the products that threads only wait
            for step, batch in enumerate(self.batches(effort.steps, effort.batch, rng)):
                loss, gradients = model.loss(batch)
                adam.step(gradients, effort.rate * (1 - step / effort.steps))
                losses.append(loss)
        return losses

    def batches(
        self, count: int, size: int, rng: np.random.Generator | int | None = None
    ) -> Iterator[Examples]:
        """Draw batches from the training pairs."""
        generator = np.random.default_rng(rng)
        for _ in range(count):
            rows = generator.integers(len(self.training), size=size)
            yield self.encode([self.training[row] for row in rows])

    def answer(
        self,
        model: Model,
        given: Any,
        temperature: float = 0.0,
        rng: np.random.Generator | int | None = None,
    ) -> str:
        """What a model says: a symbol, one for each that was read, or what it writes.

        Args:
            model: of this task.
            given: the first part of a pair.
            temperature: of what is written, as in `Model.write`; 0 elsewhere.
            rng: a generator, or a seed for one.

        Raises:
            InputError: if what is given has symbols that no training pair has.
        """
        if END in self.symbols:
            batch = self.encode([(given, (END,))])
            (written,) = model.write(batch, self.symbols.index(END), 40, temperature, rng)
            return "".join(self.symbols[number] for number in written)
        right = self.symbols[:1] * len(given) if self.kind == "many to many" else self.symbols[0]
        batch = self.encode([(given, right)])
        said = model.probabilities(batch).argmax(2)[batch.counts]
        return "".join(self.symbols[number] for number in said)

    def accuracy(self, model: Model) -> float:
        """What part of the held-out outputs is right, each with the true ones before it."""
        batch = self.encode(self.held_out)
        right = model.probabilities(batch).argmax(2) == batch.targets
        return float(right[batch.counts].mean())

    def bits(self, model: Model) -> float:
        """The mean cross-entropy of the held-out outputs, in bits: those per character."""
        return model.loss(self.encode(self.held_out))[0] / math.log(2)

    @property
    def baseline(self) -> float:
        """What part of the held-out outputs the commonest one of the training pairs gets right."""
        commonest = Counter(s for _, right in self.training for s in _outputs(right))
        guess = max(commonest, key=lambda symbol: commonest[symbol])
        outputs = [symbol for _, right in self.held_out for symbol in _outputs(right)]
        return outputs.count(guess) / len(outputs)

    def drawing(self, cell: Cell = lstm) -> Unrolling:
        """Its type of network, for `unrolled_graph` to draw."""
        return examples.drawing(self.kind, cell)


def _outputs(right: str | tuple[str, ...]) -> tuple[str, ...]:
    return right if isinstance(right, tuple) else (right,)


def split(pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Training pairs, and a tenth that is held out, drawn always the same; none is in both."""
    pairs = list(dict.fromkeys(pairs))
    if len(pairs) < 20:
        raise InputError(f"a task needs 20 pairs or more; found {len(pairs)}.")
    order = np.random.default_rng(0).permutation(len(pairs))
    cut = len(pairs) // 10
    held_out, training = (tuple(pairs[k] for k in part) for part in (order[:cut], order[cut:]))
    return training, held_out


def letters_of(words: Iterable[Iterable[str]]) -> dict[str, int]:
    """Letter → its number, for all letters of some words."""
    letters = sorted({letter for word in words for letter in word})
    return {letter: number for number, letter in enumerate(letters)}


def numbers_of(word: Iterable[str], letters: dict[str, int]) -> list[int]:
    """The numbers of a word's letters.

    Raises:
        InputError: if a letter is not known.
    """
    word = list(word)
    for letter in word:
        if letter not in letters:
            raise InputError(
                f"{letter!r} in {''.join(word)!r} occurs in no training pair; known are "
                f"{''.join(letters).strip()!r}."
            )
    return [letters[letter] for letter in word]


def translation(title: str, words: Sequence[tuple[str, str]], effort: Effort) -> Task:
    """Sequence to sequence: pairs of words, letter by letter."""
    sources = letters_of(source for source, _ in words)
    letters = letters_of([*(target for _, target in words), END])

    def encode(pairs: Sequence[Pair]) -> Examples:
        return examples.sequence_to_sequence(
            [numbers_of(source, sources) for source, _ in pairs],
            [numbers_of(target, letters) for _, target in pairs],
            len(sources),
            len(letters),
        )

    training, held_out = split([(source, (*target, END)) for source, target in words])
    kind = "sequence to sequence"
    return Task(title, kind, training, held_out, tuple(letters), encode, effort)
