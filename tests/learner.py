"""The course lab's functions as a learner writes them, in NumPy: for mistakes to be typed in."""

LEARNER = """
import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / e.sum(axis=0)


def rnn_cell_forward(xt, a_prev, parameters):
    p = parameters
    a_next = np.tanh(p["Waa"] @ a_prev + p["Wax"] @ xt + p["ba"])
    yt_pred = softmax(p["Wya"] @ a_next + p["by"])
    return a_next, yt_pred, (a_next, a_prev, xt, parameters)


def rnn_forward(x, a0, parameters):
    n_a, m, T_x = *a0.shape, x.shape[2]
    a = np.zeros((n_a, m, T_x))
    y_pred = np.zeros((len(parameters["by"]), m, T_x))
    caches = []
    a_next = a0
    for t in range(T_x):
        a_next, yt, cache = rnn_cell_forward(x[:, :, t], a_next, parameters)
        a[:, :, t] = a_next
        y_pred[:, :, t] = yt
        caches.append(cache)
    return a, y_pred, (caches, x)


def rnn_cell_backward(da_next, cache):
    a_next, a_prev, xt, p = cache
    dz = (1 - a_next**2) * da_next
    return {
        "dxt": p["Wax"].T @ dz,
        "da_prev": p["Waa"].T @ dz,
        "dWax": dz @ xt.T,
        "dWaa": dz @ a_prev.T,
        "dba": np.sum(dz, axis=1, keepdims=True),
    }


def rnn_backward(da, caches):
    caches, x = caches
    n_a, m, T_x = da.shape
    found = {"dWax": 0, "dWaa": 0, "dba": 0}
    dx = np.zeros((len(x), m, T_x))
    da_prev = np.zeros((n_a, m))
    for t in reversed(range(T_x)):
        back = rnn_cell_backward(da[:, :, t] + da_prev, caches[t])
        da_prev = back["da_prev"]
        dx[:, :, t] = back["dxt"]
        for key in found:
            found[key] = found[key] + back[key]
    return {"dx": dx, "da0": da_prev, **found}


def lstm_cell_forward(xt, a_prev, c_prev, parameters):
    p = parameters
    concat = np.concatenate([a_prev, xt])
    ft = sigmoid(p["Wf"] @ concat + p["bf"])
    it = sigmoid(p["Wi"] @ concat + p["bi"])
    cct = np.tanh(p["Wc"] @ concat + p["bc"])
    ot = sigmoid(p["Wo"] @ concat + p["bo"])
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    yt_pred = softmax(p["Wy"] @ a_next + p["by"])
    return a_next, c_next, yt_pred, (
        a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters
    )


def lstm_forward(x, a0, parameters):
    n_a, m, T_x = *a0.shape, x.shape[2]
    a, c = np.zeros((n_a, m, T_x)), np.zeros((n_a, m, T_x))
    y = np.zeros((len(parameters["by"]), m, T_x))
    caches = []
    a_next, c_next = a0, np.zeros(a0.shape)
    for t in range(T_x):
        a_next, c_next, yt, cache = lstm_cell_forward(x[:, :, t], a_next, c_next, parameters)
        a[:, :, t] = a_next
        c[:, :, t] = c_next
        y[:, :, t] = yt
        caches.append(cache)
    return a, y, c, (caches, x)


def lstm_cell_backward(da_next, dc_next, cache):
    a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, p = cache
    n_a = len(a_next)
    concat = np.concatenate([a_prev, xt])
    dc = dc_next + da_next * ot * (1 - np.tanh(c_next) ** 2)
    dot = da_next * np.tanh(c_next) * ot * (1 - ot)
    dit = dc * cct * it * (1 - it)
    dcct = dc * it * (1 - cct**2)
    dft = dc * c_prev * ft * (1 - ft)
    gates = {"f": dft, "i": dit, "c": dcct, "o": dot}
    dconcat = sum(p["W" + gate].T @ d for gate, d in gates.items())
    found = {"dxt": dconcat[n_a:], "da_prev": dconcat[:n_a], "dc_prev": dc * ft}
    for gate, d in gates.items():
        found["dW" + gate] = d @ concat.T
        found["db" + gate] = np.sum(d, axis=1, keepdims=True)
    return found


def lstm_backward(da, caches):
    caches, x = caches
    n_a, m, T_x = da.shape
    dx = np.zeros((len(x), m, T_x))
    da_prev, dc_prev = np.zeros((n_a, m)), np.zeros((n_a, m))
    found = {}
    for t in reversed(range(T_x)):
        back = lstm_cell_backward(da[:, :, t] + da_prev, dc_prev, caches[t])
        da_prev = back.pop("da_prev")
        dc_prev = back.pop("dc_prev")
        dx[:, :, t] = back.pop("dxt")
        for key in back:
            found[key] = found.get(key, 0) + back[key]
    return {"dx": dx, "da0": da_prev, **found}


def gru_cell_forward(xt, c_prev, parameters):
    p = parameters
    concat = np.concatenate([c_prev, xt])
    ut = sigmoid(p["Wu"] @ concat + p["bu"])
    rt = sigmoid(p["Wr"] @ concat + p["br"])
    cct = np.tanh(p["Wc"] @ np.concatenate([rt * c_prev, xt]) + p["bc"])
    c_next = ut * cct + (1 - ut) * c_prev
    yt_pred = softmax(p["Wy"] @ c_next + p["by"])
    return c_next, yt_pred, (c_next, c_prev, ut, rt, cct, xt, parameters)


def gru_simplified_cell_forward(xt, c_prev, parameters):
    p = parameters
    concat = np.concatenate([c_prev, xt])
    ut = sigmoid(p["Wu"] @ concat + p["bu"])
    cct = np.tanh(p["Wc"] @ concat + p["bc"])
    c_next = ut * cct + (1 - ut) * c_prev
    yt_pred = softmax(p["Wy"] @ c_next + p["by"])
    return c_next, yt_pred, (c_next, c_prev, ut, cct, xt, parameters)


def through_time(cell, x, c0, parameters):
    c, y, caches = [], [], []
    c_next = c0
    for t in range(x.shape[2]):
        c_next, yt, cache = cell(x[:, :, t], c_next, parameters)
        c.append(c_next)
        y.append(yt)
        caches.append(cache)
    return np.stack(c, axis=2), np.stack(y, axis=2), (caches, x)


def gru_forward(x, c0, parameters):
    return through_time(gru_cell_forward, x, c0, parameters)


def gru_simplified_forward(x, c0, parameters):
    return through_time(gru_simplified_cell_forward, x, c0, parameters)


def gru_cell_backward(dc_next, cache):
    c_next, c_prev, ut, rt, cct, xt, p = cache
    n_a = len(c_next)
    dcct = dc_next * ut * (1 - cct**2)
    dread = p["Wc"].T @ dcct
    dreset = dread[:n_a]
    dut = dc_next * (cct - c_prev) * ut * (1 - ut)
    drt = dreset * c_prev * rt * (1 - rt)
    dconcat = p["Wu"].T @ dut + p["Wr"].T @ drt
    concat = np.concatenate([c_prev, xt])
    return {
        "dxt": dconcat[n_a:] + dread[n_a:],
        "dc_prev": dconcat[:n_a] + rt * dreset + (1 - ut) * dc_next,
        "dWu": dut @ concat.T,
        "dbu": dut.sum(axis=1, keepdims=True),
        "dWr": drt @ concat.T,
        "dbr": drt.sum(axis=1, keepdims=True),
        "dWc": dcct @ np.concatenate([rt * c_prev, xt]).T,
        "dbc": dcct.sum(axis=1, keepdims=True),
    }


def gru_simplified_cell_backward(dc_next, cache):
    c_next, c_prev, ut, cct, xt, p = cache
    n_a = len(c_next)
    dcct = dc_next * ut * (1 - cct**2)
    dut = dc_next * (cct - c_prev) * ut * (1 - ut)
    dconcat = p["Wu"].T @ dut + p["Wc"].T @ dcct
    concat = np.concatenate([c_prev, xt])
    return {
        "dxt": dconcat[n_a:],
        "dc_prev": dconcat[:n_a] + (1 - ut) * dc_next,
        "dWu": dut @ concat.T,
        "dbu": dut.sum(axis=1, keepdims=True),
        "dWc": dcct @ concat.T,
        "dbc": dcct.sum(axis=1, keepdims=True),
    }


def back_through_time(cell, dc, caches):
    caches, x = caches
    dc_prev = 0
    dx, found = [], {}
    for t in reversed(range(dc.shape[2])):
        back = cell(dc[:, :, t] + dc_prev, caches[t])
        dc_prev = back.pop("dc_prev")
        dx.append(back.pop("dxt"))
        for key in back:
            found[key] = found.get(key, 0) + back[key]
    return {"dx": np.stack(dx[::-1], axis=2), "dc0": dc_prev, **found}


def gru_backward(dc, caches):
    return back_through_time(gru_cell_backward, dc, caches)


def gru_simplified_backward(dc, caches):
    return back_through_time(gru_simplified_cell_backward, dc, caches)


def clip(gradients, maxValue):
    return {key: np.clip(array, -maxValue, maxValue) for key, array in gradients.items()}


def sample(parameters, char_to_ix, seed):
    p = parameters
    x, a_prev = np.zeros((len(p["by"]), 1)), np.zeros((len(p["b"]), 1))
    indices = []
    idx, counter, newline = -1, 0, char_to_ix["\\\\n"]
    while idx != newline and counter != 50:
        a = np.tanh(p["Wax"] @ x + p["Waa"] @ a_prev + p["b"])
        y = softmax(p["Wya"] @ a + p["by"])
        np.random.seed(counter + seed)
        idx = np.random.choice(range(len(y)), p=y.ravel())
        indices.append(idx)
        x = np.zeros_like(x)
        x[idx] = 1
        a_prev = a
        seed += 1
        counter += 1
    if counter == 50:
        indices.append(newline)
    return indices


def optimize(X, Y, a_prev, parameters, learning_rate=0.01):
    p = parameters
    a, y, loss = {-1: a_prev}, {}, 0
    for t in range(len(X)):
        x = np.zeros((27, 1))
        x[X[t]] = 1
        a[t] = np.tanh(p["Wax"] @ x + p["Waa"] @ a[t - 1] + p["b"])
        y[t] = softmax(p["Wya"] @ a[t] + p["by"])
        loss -= np.log(y[t][Y[t], 0])
    gradients = {"d" + key: np.zeros_like(array) for key, array in p.items()}
    da_prev = np.zeros_like(a_prev)
    for t in reversed(range(len(X))):
        dy = np.copy(y[t])
        dy[Y[t]] -= 1
        gradients["dWya"] += dy @ a[t].T
        gradients["dby"] += dy
        da = p["Wya"].T @ dy + da_prev
        dz = (1 - a[t] ** 2) * da
        gradients["db"] += dz
        gradients["dWax"][:, [X[t]]] += dz
        gradients["dWaa"] += dz @ a[t - 1].T
        da_prev = p["Waa"].T @ dz
    gradients = clip(gradients, 5)
    for key in p:
        p[key] -= learning_rate * gradients["d" + key]
    return loss, gradients, a[len(X) - 1]
"""


def functions(*typed):
    """The learner's functions by name; each (old, new) is typed in, and must be there."""
    text = LEARNER.replace("\\\\n", "\\n")
    for old, new in typed:
        assert old in text, old
        text = text.replace(old, new)
    names = {}
    exec(compile(text, "<a learner's file>", "exec"), names)
    return names
