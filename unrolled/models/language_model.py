"""A recurrent language model: what comes next, given everything so far."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import Cell, cells
from ..errors import InputError
from ..network import Trace
from ..nn import Recurrent

State = Tensor | tuple[Tensor, ...]


class LanguageModel(nn.Module):
    """Embedding, deep recurrent stack, output layer: logits for the next token at every step.

    Dropout acts on what comes out of each layer, never from one time step to the next (Zaremba
    et al. 2014).

    Args:
        vocabulary_size: Number of tokens, V.
        embedding_size: Size of a token's vector, the stack's input size.
        hidden_size: Size of each layer's hidden state, H.
        num_layers: Layers in the stack.
        cell: The recurrent cell of every layer; default `unrolled.cells.lstm`.
        dropout: Probability of dropping, 0 ≤ p < 1.
        tied: The output layer uses the embedding's vectors as its weights (Press & Wolf 2017;
            Inan et al. 2017). Where their size is not the stack's output size, a linear map
            without bias goes in between.

    Raises:
        InputError: A size is not positive or the dropout is no probability below 1.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: Cell = cells.lstm,
        dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(vocabulary_size, embedding_size, hidden_size, num_layers, dropout)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.recurrent = Recurrent(
            cell, embedding_size, hidden_size, num_layers=num_layers, dropout=dropout
        )
        self.dropout = nn.Dropout(dropout)
        self.projection: nn.Module = nn.Identity()
        if tied and embedding_size != hidden_size:
            self.projection = nn.Linear(hidden_size, embedding_size, bias=False)
        self.output = nn.Linear(embedding_size if tied else hidden_size, vocabulary_size)
        if tied:
            nn.init.normal_(self.embedding.weight, std=embedding_size**-0.5)
            self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits for the token after each step.

        Args:
            tokens: Token numbers, shape (T, B), int64.
            state: The stack's state before the first step, as this method returned it; zeros by
                default.

        Returns:
            Logits of shape (T, B, V), and the state after the last step.
        """
        y, state = self.recurrent(self.embedding(tokens), state)
        logits: Tensor = self.output(self.projection(self.dropout(y)))
        return logits, state

    @torch.no_grad()
    def trace(self, tokens: npt.ArrayLike) -> Trace:
        """Every named value of the recurrent stack while it reads, in NumPy.

        Args:
            tokens: Token numbers, shape (T,) or (T, B).

        Returns:
            A trace whose input is the tokens' embeddings; dropout is left out.
        """
        numbers = torch.as_tensor(np.asarray(tokens, np.int64), device=self.embedding.weight.device)
        return self.recurrent.network().trace(self.embedding(numbers).double().cpu().numpy())


def detach(state: State) -> State:
    """The same state without its history, so that gradients stop there (truncated BPTT)."""
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(part.detach() for part in state)


def _check_sizes(V: int, E: int, H: int, layers: int, dropout: float) -> None:
    sizes = {"vocabulary_size": V, "embedding_size": E, "hidden_size": H, "num_layers": layers}
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} must be at least 1, not {size}.")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be at least 0 and below 1, not {dropout}.")
