"""All that a call of recurrent layers draws at random, apart from the call."""

from collections.abc import Mapping, Sequence, Sized

from torch import Tensor, nn

from ..cell import Cell
from ..errors import InputError
from ..language.equations import Every
from .direction import Direction
from .masks import Masks, draw_masks, dropout_mask, fitting


class Drawing(nn.Module):
    """What is random in recurrent layers: see `Layers`, which sets what stands here."""

    weight_dropout: float = 0.0  # a subclass may have it
    cell: Cell
    dropout: float
    dropout_every: Every
    bidirectional: bool
    _directions: list[Direction]
    _random: list[Direction]
    _names: list[list[str]]
    _state_sizes: list[int]

    def _families(self, number: int) -> Sequence[Tensor]:
        """The stacked families of one direction of one layer, in the cell's order."""
        raise NotImplementedError

    @property
    def _families_dropped(self) -> frozenset[str]:
        """The families that lose entries to weight dropout."""
        return frozenset()

    def _families_used(self, number: int, masks: Masks | None) -> Sequence[Tensor]:
        """The families as a call uses them; with weight dropout, what is left of them."""
        found, chosen = self._families(number), self._families_dropped
        if not chosen or not (self.training or masks):
            return found
        return [
            stacked
            if family not in chosen
            else stacked * dropout_mask(self.weight_dropout, stacked, stacked.shape)
            if masks is None
            else stacked * fitting(family, masks[family], tuple(stacked.shape), stacked)
            for family, stacked in zip(self._directions[number].families, found, strict=True)
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

    def _check_masks(self, masks: Sequence[Masks]) -> None:
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
