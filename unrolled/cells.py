"""The catalogue: each cell is its equations and their source. Nothing else defines them.

Every gate has its letter: input i, forget f, candidate g and output o of the LSTM; reset r, update
z and candidate n of the GRU, whose z keeps: h = (1 − z) * n + z * h_prev.
"""

from .cell import Cell, cell
from .functions import relu, sigmoid, tanh


@cell
def lstm(x, h_prev, c_prev, *, W, U, b):
    """Long short-term memory.

    Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.
    """
    i = sigmoid(W.i @ x + U.i @ h_prev + b.i)
    f = sigmoid(W.f @ x + U.f @ h_prev + b.f)
    g = tanh(W.g @ x + U.g @ h_prev + b.g)
    o = sigmoid(W.o @ x + U.o @ h_prev + b.o)
    c = f * c_prev + i * g
    h = o * tanh(c)
    return h, c


@cell
def gru(x, h_prev, *, W, U, b, b_U):
    """Gated recurrent unit with the reset after the product, as in cuDNN.

    Cho et al. 2014, first version of arXiv:1406.1078. The bias b_U stands inside the reset.
    """
    r = sigmoid(W.r @ x + U.r @ h_prev + b.r)
    z = sigmoid(W.z @ x + U.z @ h_prev + b.z)
    n = tanh(W.n @ x + b.n + r * (U.n @ h_prev + b_U.n))
    h = (1 - z) * n + z * h_prev
    return h


@cell
def gru_original(x, h_prev, *, W, U, b):
    """Gated recurrent unit with the reset before the product.

    Cho et al. 2014, published version; Chung et al. 2014, arXiv:1412.3555.
    """
    r = sigmoid(W.r @ x + U.r @ h_prev + b.r)
    z = sigmoid(W.z @ x + U.z @ h_prev + b.z)
    n = tanh(W.n @ x + U.n @ (r * h_prev) + b.n)
    h = (1 - z) * n + z * h_prev
    return h


@cell
def gru_simplified(x, h_prev, *, W, U, b):
    """Gated recurrent unit without a reset gate, as courses introduce it (Ng 2018)."""
    z = sigmoid(W.z @ x + U.z @ h_prev + b.z)
    n = tanh(W.n @ x + U.n @ h_prev + b.n)
    h = (1 - z) * n + z * h_prev
    return h


@cell
def simple(x, h_prev, *, W, U, b):
    """Simple recurrent network (Elman 1990), with tanh."""
    h = tanh(W.h @ x + U.h @ h_prev + b.h)
    return h


@cell
def simple_relu(x, h_prev, *, W, U, b):
    """Simple recurrent network (Elman 1990), with the rectifier (Le, Jaitly & Hinton 2015)."""
    h = relu(W.h @ x + U.h @ h_prev + b.h)
    return h


@cell
def peephole_lstm(x, h_prev, c_prev, *, W, U, P, b):
    """Long short-term memory whose gates see the cell state (Gers, Schraudolph & Schmidhuber 2002).

    Input and forget gate see it before the step, the output gate after it.
    """
    i = sigmoid(W.i @ x + U.i @ h_prev + P.i * c_prev + b.i)
    f = sigmoid(W.f @ x + U.f @ h_prev + P.f * c_prev + b.f)
    g = tanh(W.g @ x + U.g @ h_prev + b.g)
    c = f * c_prev + i * g
    o = sigmoid(W.o @ x + U.o @ h_prev + P.o * c + b.o)
    h = o * tanh(c)
    return h, c


@cell
def coupled_lstm(x, h_prev, c_prev, *, W, U, b):
    """Long short-term memory that writes exactly what it forgets: i = 1 − f.

    Olah 2015, "Understanding LSTM networks"; Greff et al. 2015 couple them as f = 1 − i.
    """
    f = sigmoid(W.f @ x + U.f @ h_prev + b.f)
    i = 1 - f
    g = tanh(W.g @ x + U.g @ h_prev + b.g)
    o = sigmoid(W.o @ x + U.o @ h_prev + b.o)
    c = f * c_prev + i * g
    h = o * tanh(c)
    return h, c


@cell
def projected_lstm(x, h_prev, c_prev, *, W, U, V, b):
    """Long short-term memory with a projection to a smaller output.

    Sak, Senior & Beaufays 2014.
    """
    i = sigmoid(W.i @ x + U.i @ h_prev + b.i)
    f = sigmoid(W.f @ x + U.f @ h_prev + b.f)
    g = tanh(W.g @ x + U.g @ h_prev + b.g)
    o = sigmoid(W.o @ x + U.o @ h_prev + b.o)
    c = f * c_prev + i * g
    h = V.h @ (o * tanh(c))
    return h, c


def catalogue() -> dict[str, Cell]:
    """Name → cell, for every cell of this page."""
    return {name: value for name, value in globals().items() if isinstance(value, Cell)}
