"""Forward pass and backpropagation through time by hand, for one sequence after the other.

Written from the papers' formulas and nothing of ours, as slowly and plainly as it goes. Weights are
dictionaries by block (`"W.i"`). `test_oracles.py` checks them by differences.
"""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def elman(x, h, p, dy, dh_last):
    """h_t = tanh(W x_t + U h_{t-1} + b)."""
    W, U, b = p["W.h"], p["U.h"], p["b.h"]
    hs = [h]
    for x_t in x:
        hs.append(np.tanh(W @ x_t + U @ hs[-1] + b))
    d = {name: np.zeros_like(array) for name, array in p.items()}
    dx, dh = np.zeros_like(x), dh_last.copy()
    for t in reversed(range(len(x))):
        da = (dh + dy[t]) * (1 - hs[t + 1] ** 2)
        d["W.h"] += np.outer(da, x[t])
        d["U.h"] += np.outer(da, hs[t])
        d["b.h"] += da
        dx[t], dh = W.T @ da, U.T @ da
    return np.array(hs[1:]), [hs[-1]], dx, [dh], d


def lstm(x, h, c, p, dy, dh_last, dc_last):
    """Hochreiter & Schmidhuber 1997 with forget gate."""
    hs, cs, gates = [h], [c], []
    for x_t in x:
        a = {k: p[f"W.{k}"] @ x_t + p[f"U.{k}"] @ hs[-1] + p[f"b.{k}"] for k in "ifgo"}
        i, f, g, o = sigmoid(a["i"]), sigmoid(a["f"]), np.tanh(a["g"]), sigmoid(a["o"])
        gates.append((i, f, g, o))
        cs.append(f * cs[-1] + i * g)
        hs.append(o * np.tanh(cs[-1]))
    d = {name: np.zeros_like(array) for name, array in p.items()}
    dx, dh, dc = np.zeros_like(x), dh_last.copy(), dc_last.copy()
    for t in reversed(range(len(x))):
        i, f, g, o = gates[t]
        dh_t, tanh_c = dh + dy[t], np.tanh(cs[t + 1])
        dc_t = dc + dh_t * o * (1 - tanh_c**2)
        da = {
            "i": dc_t * g * i * (1 - i),
            "f": dc_t * cs[t] * f * (1 - f),
            "g": dc_t * i * (1 - g**2),
            "o": dh_t * tanh_c * o * (1 - o),
        }
        dh, dc = np.zeros_like(h), dc_t * f
        for k, gradient in da.items():
            d[f"W.{k}"] += np.outer(gradient, x[t])
            d[f"U.{k}"] += np.outer(gradient, hs[t])
            d[f"b.{k}"] += gradient
            dx[t] += p[f"W.{k}"].T @ gradient
            dh += p[f"U.{k}"].T @ gradient
    return np.array(hs[1:]), [hs[-1], cs[-1]], dx, [dh, dc], d


def gru(x, h, p, dy, dh_last, reset_after):
    """Cho et al. 2014, the reset after or before the product; z keeps."""
    hs, steps = [h], []
    for x_t in x:
        prev = hs[-1]
        r = sigmoid(p["W.r"] @ x_t + p["U.r"] @ prev + p["b.r"])
        z = sigmoid(p["W.z"] @ x_t + p["U.z"] @ prev + p["b.z"])
        inner = p["U.n"] @ prev + p["b_U.n"] if reset_after else p["U.n"] @ (r * prev)
        n = np.tanh(p["W.n"] @ x_t + p["b.n"] + (r * inner if reset_after else inner))
        steps.append((r, z, n, inner))
        hs.append((1 - z) * n + z * prev)
    d = {name: np.zeros_like(array) for name, array in p.items()}
    dx, dh = np.zeros_like(x), dh_last.copy()
    for t in reversed(range(len(x))):
        r, z, n, inner = steps[t]
        prev, dh_t = hs[t], dh + dy[t]
        dn = dh_t * (1 - z) * (1 - n**2)
        dz = dh_t * (prev - n) * z * (1 - z)
        dh = dh_t * z
        if reset_after:
            dr = dn * inner * r * (1 - r)
            d["U.n"] += np.outer(dn * r, prev)
            d["b_U.n"] += dn * r
            dh += p["U.n"].T @ (dn * r)
        else:
            through = p["U.n"].T @ dn
            dr = through * prev * r * (1 - r)
            d["U.n"] += np.outer(dn, r * prev)
            dh += through * r
        for k, gradient in (("r", dr), ("z", dz)):
            d[f"U.{k}"] += np.outer(gradient, prev)
            dh += p[f"U.{k}"].T @ gradient
        for k, gradient in (("r", dr), ("z", dz), ("n", dn)):
            d[f"W.{k}"] += np.outer(gradient, x[t])
            d[f"b.{k}"] += gradient
            dx[t] += p[f"W.{k}"].T @ gradient
    return np.array(hs[1:]), [hs[-1]], dx, [dh], d


ORACLES = {
    "simple": elman,
    "lstm": lstm,
    "gru": lambda *arguments: gru(*arguments, reset_after=True),
    "gru_original": lambda *arguments: gru(*arguments, reset_after=False),
}


def both_passes(name, x, states, parameters, dy, dstates):
    """The oracle over a batch (T, B, …), row by row: y, last states, dx, dstates, gradients."""

    def call(x, states, p, dy, dstates):
        if name == "lstm":
            return ORACLES[name](x, *states, p, dy, *dstates)
        return ORACLES[name](x, states[0], p, dy, dstates[0])

    rows = [
        call(x[:, b], [s[b] for s in states], parameters, dy[:, b], [s[b] for s in dstates])
        for b in range(x.shape[1])
    ]
    return (
        np.stack([row[0] for row in rows], 1),
        [np.stack(parts) for parts in zip(*(row[1] for row in rows), strict=True)],
        np.stack([row[2] for row in rows], 1),
        [np.stack(parts) for parts in zip(*(row[3] for row in rows), strict=True)],
        {key: sum(row[4][key] for row in rows) for key in parameters},
    )
