"""Learning in NumPy: a recurrent network with an output layer, its loss, and Adam."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...backends import reference
from ...backends.steps import Array
from ...cell import Cell
from ...errors import InputError
from ...network import Gradients, Network, State, Trace
from ...recurrence import Run
from ..course.arrays import softmax
from .examples import Examples


@dataclass(eq=False)
class Model:
    """A network whose outputs are read as probabilities: softmax(W h + b).

    Attributes:
        network: what reads, or of two what writes.
        W: (symbols, H · directions) of the output layer.
        b: (symbols,) of the output layer.
        encoder: what reads first; None where there is none.
        run: the `run` of a backend.
    """

    network: Network
    W: Array
    b: Array
    encoder: Network | None = None
    run: Run = reference.run

    @classmethod
    def init(
        cls,
        cell: Cell,
        examples: Examples,
        symbols: int,
        hidden_size: int = 64,
        rng: np.random.Generator | int | None = None,
        run: Run = reference.run,
    ) -> "Model":
        """Draw a model for such examples.

        Args:
            cell: any cell whose sizes are all H but the input's.
            examples: some examples, for their sizes.
            symbols: how many outputs are told apart.
            hidden_size: H.
            rng: a generator, or a seed for one.
            run: the `run` of a backend: `unrolled.backends.cpu.run` is compiled and fast.
        """
        generator = np.random.default_rng(rng)
        network = Network.init(cell, examples.x.shape[2], hidden_size, rng=generator)
        encoder = None
        if examples.before is not None:
            width = examples.before.x.shape[2]
            encoder = Network.init(cell, width, hidden_size, rng=generator)
        bound = 1 / np.sqrt(hidden_size)
        W = generator.uniform(-bound, bound, (symbols, hidden_size))
        return cls(network, W, np.zeros(symbols), encoder, run)

    def loss(self, examples: Examples) -> tuple[float, list[Array]]:
        """The mean cross-entropy of the outputs that count, in nats, and its gradients.

        Returns:
            The loss, and gradients in the order of `parameters`.
        """
        state, reading = self._read(examples)
        trace = self.network.trace(examples.x, state, examples.lengths, names=(), run=self.run)
        counts, targets = examples.counts, examples.targets
        outputs, right = trace.y[counts], targets[counts]  # (N, H), (N,)
        probabilities = softmax((outputs @ self.W.T + self.b).T).T
        chosen = (np.arange(len(right)), right)
        loss = -float(np.mean(np.log(probabilities[chosen] + 1e-300)))
        dz = probabilities
        dz[chosen] -= 1
        dz /= len(right)
        dy = np.zeros_like(trace.y)
        dy[counts] = dz @ self.W
        back = trace.backward(dy, run=self.run)
        found = [*_in_order(back), dz.T @ outputs, dz.sum(0)]
        if reading is not None:
            found += _in_order(reading.backward(dstate=back.state, run=self.run))
        return loss, found

    @property
    def parameters(self) -> list[Array]:
        """Every array that learning changes, in place."""
        found = [*self.network.params[0][0].values(), self.W, self.b]
        return found if self.encoder is None else [*found, *self.encoder.params[0][0].values()]

    def probabilities(self, examples: Examples) -> Array:
        """What the model gives for each symbol at each step, (T, B, symbols)."""
        state, _ = self._read(examples)
        trace = self.network.trace(examples.x, state, examples.lengths, names=(), run=self.run)
        return self._softmax(trace.y)

    def _softmax(self, y: Array) -> Array:
        return np.moveaxis(softmax(np.moveaxis(y @ self.W.T + self.b, -1, 0)), 0, -1)

    def _read(self, examples: Examples) -> tuple[State | None, Trace | None]:
        if self.encoder is None or examples.before is None:
            return None, None
        before = examples.before
        reading = self.encoder.trace(before.x, None, before.lengths, names=(), run=self.run)
        return reading.state, reading

    def write(
        self,
        examples: Examples,
        end: int,
        longest: int = 40,
        temperature: float = 0.0,
        rng: np.random.Generator | int | None = None,
    ) -> list[list[int]]:
        """Write a sequence for each example, each output fed back as the next input.

        Args:
            examples: what is given; of `x` the first step only is read.
            end: the symbol that ends a sequence.
            longest: after so many symbols it ends anyhow.
            temperature: 0 takes the likeliest symbol; above it, symbols are drawn by their
                probabilities to the power of 1 / temperature: the higher, the bolder.
            rng: a generator, or a seed for one.

        Returns:
            For each example its symbols, without the end.
        """
        if temperature < 0:
            raise InputError(f"the temperature is 0 or more; found {temperature}.")
        generator = np.random.default_rng(rng)
        state, _ = self._read(examples)
        x = examples.x[:1]
        written: list[list[int]] = [[] for _ in range(x.shape[1])]
        going = np.ones(len(written), bool)
        for _ in range(longest):
            y, state = self.network.run(x, state)
            probabilities = self._softmax(y)[0]
            if temperature:
                powered = probabilities ** (1 / temperature)
                powered /= powered.sum(1, keepdims=True)
                drawn = generator.random((len(powered), 1))
                symbols = (powered.cumsum(1) < drawn).sum(1).clip(max=len(self.b) - 1)
            else:
                symbols = probabilities.argmax(1)
            going &= symbols != end
            for row in np.nonzero(going)[0]:
                written[row].append(int(symbols[row]))
            if not going.any():
                break
            x = np.zeros_like(x)
            x[0, np.arange(len(symbols)), x.shape[2] - len(self.b) + symbols] = 1
        return written


def _in_order(gradients: Gradients) -> list[Array]:
    """The gradients of the one layer's parameters, in the order of the parameters."""
    found = gradients.params[0][0]
    return [found[block] for block in gradients.trace.network.params[0][0]]


@dataclass(eq=False)
class Adam:
    """Steps against the gradient, each number at its own pace (Kingma & Ba 2015).

    Attributes:
        parameters: the arrays to change, in place.
        largest: longer gradients are shortened to this Euclidean norm (Pascanu et al. 2013).
    """

    parameters: list[Array]
    largest: float = 1.0
    moments: list[tuple[Array, Array]] = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]

    def step(self, gradients: Sequence[Array], rate: float) -> None:
        """Change the parameters once, each number by about the rate."""
        self.steps += 1
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        shorter = min(1.0, self.largest / (norm + 1e-12))
        first, second = 0.9, 0.999
        longer = math.sqrt(1 - second**self.steps) / (1 - first**self.steps)  # none was seen before
        for array, gradient, (mean, square) in zip(
            self.parameters, gradients, self.moments, strict=True
        ):
            short = gradient * shorter
            mean += (1 - first) * (short - mean)
            square += (1 - second) * (short * short - square)
            array -= rate * longer * mean / (np.sqrt(square) + 1e-8)
