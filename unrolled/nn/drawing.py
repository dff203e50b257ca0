"""All that a call of recurrent layers draws at random, apart from the call."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass

from torch import Tensor, nn

from ..cell import Cell
from ..errors import InputError
from ..language.equations import Every
from .direction import Direction
from .masks import (
    Masks,
    draw_masks,
    draw_noise,
    dropout_mask,
    fitting,
    mask_between,
    mask_drawn_between,
    noise_of,
)


@dataclass(frozen=True)
class Drawn:
    """What is random in a call.

    Attributes:
        noises: the random values of each direction, shaped as the input; none if it has none.
        between: for each layer above the first what its input is multiplied by; none if nothing is
            dropped there.
        families: of each direction the families, some entries of which are dropped; none if all
            are as they are.
    """

    noises: list[Tensor]
    between: list[Tensor]
    families: list[Sequence[Tensor]]


class Drawing(nn.Module):
    """What is random in recurrent layers: see `Layers`, which sets what stands here."""

    weight_dropout: float = 0.0  # a subclass may have it
    cell: Cell
    dropout: float
    dropout_every: Every
    bidirectional: bool
    _directions: list[Direction]
    _random: list[Direction]
    _draws: bool
    _names: list[list[str]]
    _state_sizes: list[int]

    def _families(self, number: int) -> Sequence[Tensor]:
        """The stacked families of one direction of one layer, in the cell's order."""
        raise NotImplementedError

    @property
    def _families_dropped(self) -> frozenset[str]:
        """The families that lose entries to weight dropout."""
        return frozenset()

    def _drawn(self, x: Tensor, counts: Tensor | None, masks: Sequence[Masks] | None) -> Drawn:
        """What is random in a call, as given or drawn in training; elsewhere nothing is.

        Args:
            x: what the first layer reads, (T, B, I), or (rows of all steps, I) of a packed
                sequence.
            counts: of a packed sequence (T,), how many rows take part at each step.
            masks: as `draw_masks` gives them; None to draw them.

        Raises:
            InputError: if one does not fit.
        """
        if masks is not None:
            self.check_masks(masks)
        drawn = Drawn([], [], [])
        if masks is None and not self._drawing:
            return drawn
        directions = 1 + self.bidirectional
        for number in range(len(self._names)):
            mask = None if masks is None else masks[number]
            if self.dropout and number >= directions and number % directions == 0:
                # Both directions have the same.
                drawn.between.append(self._between(x, counts, mask))
            if self._draws:
                direction = self._random[number]
                drawn.noises.append(
                    draw_noise(direction, x, counts)
                    if mask is None
                    else noise_of(direction, mask, x, counts)
                )
            if self._families_dropped:
                drawn.families.append(self._families_used(number, mask))
        return drawn

    @property
    def _drawing(self) -> bool:
        """Whether a call may draw something at random."""
        return self.training and (self._draws or self.dropout > 0 or self.weight_dropout > 0)

    def _between(self, x: Tensor, counts: Tensor | None, masks: Masks | None) -> Tensor:
        """What a layer above the first reads is multiplied by."""
        width = self._state_sizes[0] * (1 + self.bidirectional)
        if masks is None:
            return self._drawn_between(x, width, counts)
        return mask_between(x, width, self._input, masks[self._input])

    def _drawn_between(self, x: Tensor, width: int, counts: Tensor | None) -> Tensor:
        return mask_drawn_between(x, width, self.dropout, self.dropout_every, counts)

    def _families_used(self, number: int, masks: Masks | None) -> Sequence[Tensor]:
        """The families of one direction without the entries that weight dropout drops."""
        return [
            stacked
            if family not in self._families_dropped
            else stacked * dropout_mask(self.weight_dropout, stacked, stacked.shape)
            if masks is None
            else stacked * fitting(family, masks[family], tuple(stacked.shape), stacked)
            for family, stacked in zip(
                self._directions[number].families, self._families(number), strict=True
            )
        ]

    def draw_masks(self, length: int, batch: int) -> list[Masks]:
        """Draw all that is random in one call, to look at it or to use it twice.

        Args:
            length: T.
            batch: B; 1 for one sequence.

        Returns:
            For each layer and direction, as they stand in a state, name → mask. The random values
            of the cell: (B, size) of what is drawn once for a sequence, (T, B, size) of what is
            drawn at every step. With `dropout`, above the first layer, the name of the cell's
            input → what its values are multiplied by: (T, B, size), or (B, size) if that is held
            over a sequence; both directions have the same. With `weight_dropout`, each family of
            recurrent matrices → what it is multiplied by.
        """
        found: list[dict[str, Tensor]] = []
        for number, names in enumerate(self._mask_names):
            families = self._families(number)
            like = families[0].detach()
            one: dict[str, Tensor] = {}
            if self._random:
                one |= draw_masks(self._random[number], like, (length, batch), batch)
            if self._input in names and number % (1 + self.bidirectional):
                one[self._input] = found[-1][self._input]
            elif self._input in names:
                steps = (length,) if self.dropout_every == "step" else ()
                width = self._state_sizes[0] * (1 + self.bidirectional)
                one[self._input] = dropout_mask(self.dropout, like, (*steps, batch, width))
            for family, stacked in zip(self._directions[number].families, families, strict=True):
                if family in self._families_dropped:
                    one[family] = dropout_mask(self.weight_dropout, like, stacked.shape)
            found.append(one)
        return list(found)

    @property
    def _input(self) -> str:
        """What the cell calls its input."""
        return self.cell.equations.inputs[0]

    @property
    def _mask_names(self) -> list[set[str]]:
        """For each direction of each layer, what is random in a call."""
        always = {*self.cell.draws, *self._families_dropped}
        between = {self._input} if self.dropout else set()
        directions = 1 + self.bidirectional
        return [always | (between if n >= directions else set()) for n in range(len(self._names))]

    def check_masks(self, masks: Sequence[Masks]) -> None:
        """Refuse what cannot be the masks of a call; whether their shapes fit is seen in it.

        Raises:
            InputError: if there is none for each layer and direction, or one has other names or
                holds something else than tensors.
        """
        expected = self._mask_names
        if not isinstance(masks, list | tuple) or len(masks) != len(expected):
            raise InputError(
                f"masks are a list with one dictionary for each of the {len(expected)} layers and "
                "directions, as draw_masks gives them; found "
                f"{type(masks).__name__} of {len(masks) if isinstance(masks, Sized) else 1}."
            )
        for names, one in zip(expected, masks, strict=True):
            if not isinstance(one, Mapping) or one.keys() != names:
                found = type(one).__name__ if not isinstance(one, Mapping) else ", ".join(one)
                raise InputError(
                    f"the masks of this layer of cell '{self.cell.name}' are "
                    f"{', '.join(sorted(names)) or 'none'}; found {found or 'none'}."
                )
            for name, mask in one.items():
                if not isinstance(mask, Tensor):
                    raise InputError(
                        f"the mask {name} is a tensor as draw_masks gives it; "
                        f"found {type(mask).__name__}."
                    )
