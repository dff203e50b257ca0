"""Mistakes for the tests to type into the learner's text (learner.py), and what is said of them."""

OUTPUT = 'softmax(p["Wya"] @ a_next + p["by"])'
LSTM_OUTPUT = 'softmax(p["Wy"] @ a_next + p["by"])'
GRU_OUTPUT = 'softmax(p["Wy"] @ c_next + p["by"])'
E_SUM = "return e / e.sum(axis=0)"
FORWARD_READS = "concat = np.concatenate([a_prev, xt])\n    ft"
BACK_READS = "concat = np.concatenate([a_prev, xt])\n    dc"
ADD = "found[key] = found.get(key, 0) + back[key]"

# What is typed in, what stood there, where it is checked, and what the report says.
TYPED = [
    # forward, the output layer
    ("rnn_cell_forward rnn_forward", OUTPUT, OUTPUT.replace("softmax", "sigmoid"), "a sigmoid"),
    (
        "lstm_cell_forward lstm_forward",
        LSTM_OUTPUT,
        LSTM_OUTPUT.replace("softmax", "sigmoid"),
        "a sigmoid stands for the softmax",
    ),
    (
        "gru_cell_forward gru_forward",
        GRU_OUTPUT,
        GRU_OUTPUT.replace("softmax", "sigmoid"),
        "a sigmoid stands for the softmax",
    ),
    ("rnn_cell_forward rnn_forward", OUTPUT, OUTPUT.removeprefix("softmax"), "softmax is missing"),
    (
        "rnn_cell_forward lstm_forward",
        E_SUM,
        "return e / e.sum(axis=1, keepdims=True)",
        "along axis 1",
    ),
    ("rnn_forward gru_cell_forward", E_SUM, "return e / e.sum()", "has no axis"),
    ("rnn_cell_forward rnn_forward", ' @ a_next + p["by"]', " @ a_next", "by is forgotten"),
    ("rnn_cell_forward rnn_forward", '"Wya"] @ a_next', '"Wya"] @ a_prev', "from a_prev"),
    ("lstm_cell_forward lstm_forward", '"Wy"] @ a_next', '"Wy"] @ c_next', "from c_next"),
    # forward, the simple cell
    ("rnn_cell_forward rnn_forward", "np.tanh(p", "sigmoid(p", "a sigmoid stands for the tanh"),
    ("rnn_cell_forward rnn_forward", "np.tanh(p", "(p", "nothing stands for the tanh"),
    ("rnn_cell_forward rnn_forward", "np.tanh(p", "np.maximum(0, p", "a relu stands"),
    ("rnn_cell_forward rnn_forward", ' + p["ba"]', "", "ba is forgotten"),
    (
        "rnn_cell_forward rnn_forward",
        'p["Waa"] @ a_prev +',
        'p["Waa"].T @ a_prev +',
        "Waa is transposed",
    ),
    (
        "rnn_cell_forward rnn_forward",
        'p["Waa"] @ a_prev + p["Wax"]',
        'p["Wax"]',
        "a<t−1> is ignored",
    ),
    # forward, through time
    (
        "rnn_forward",
        "caches = []\n    a_next = a0",
        "caches = []\n    a_next = 0 * a0",
        "a0 is ignored",
    ),
    (
        "rnn_forward",
        "rnn_cell_forward(x[:, :, t], a_next",
        "rnn_cell_forward(x[:, :, t], a0",
        "a is not carried",
    ),
    (
        "rnn_forward",
        "rnn_cell_forward(x[:, :, t]",
        "rnn_cell_forward(x[:, :, 0]",
        "every step reads the first input",
    ),
    (
        "rnn_forward",
        "rnn_cell_forward(x[:, :, t]",
        "rnn_cell_forward(x[:, :, T_x - 1 - t]",
        "read from its end",
    ),
    (
        "rnn_forward",
        "        a[:, :, t] = a_next\n        y_pred[:, :, t] = yt\n        caches.append(cache)",
        "        caches.append(cache)\n    a[:, :, t] = a_next\n    y_pred[:, :, t] = yt",
        "only the last step is stored",
    ),
    ("rnn_forward", "a[:, :, t] = a_next", "a[:, :, t] = cache[1]", "what a step began with"),
    ("lstm_forward", "a_next, c_next = a0, np", "a_next, c_next = 0 * a0, np", "a0 is ignored"),
    (
        "lstm_forward",
        "a_next, c_next = a0, np.zeros(a0.shape)",
        "a_next, c_next = a0, a0",
        "the cell state begins with a0",
    ),
    (
        "lstm_forward",
        "a_next, c_next, parameters)",
        "a_next, 0 * c_next, parameters)",
        "c is not carried",
    ),
    ("lstm_forward", "a_next, c_next, parameters)", "a0, c_next, parameters)", "a is not carried"),
    ("lstm_forward", "a_next, c_next, parameters)", "a0, 0 * c_next, parameters)", "neither a nor"),
    ("lstm_forward", "return a, y, c", "return c, y, a", "a and c are exchanged"),
    ("gru_forward", "    c_next = c0", "    c_next = 0 * c0", "c0 is ignored"),
    (
        "gru_simplified_forward",
        "cell(x[:, :, t], c_next, ",
        "cell(x[:, :, t], c0, ",
        "c is not carried",
    ),
    # forward, the LSTM
    (
        "lstm_cell_forward lstm_forward",
        FORWARD_READS,
        FORWARD_READS.replace("a_prev, xt", "xt, a_prev"),
        "the other way round: [x<t>; a<t−1>]",
    ),
    (
        "lstm_cell_forward lstm_forward",
        FORWARD_READS,
        FORWARD_READS.replace("a_prev", "c_prev"),
        "the gates read c_prev",
    ),
    ("lstm_cell_forward lstm_forward", ' + p["bf"]', "", "bf is forgotten"),
    ("lstm_cell_forward lstm_forward", ' + p["bc"]', "", "bc is forgotten"),
    (
        "lstm_cell_forward lstm_forward",
        'np.tanh(p["Wc"]',
        'sigmoid(p["Wc"]',
        "a sigmoid stands for the tanh of the candidate",
    ),
    (
        "lstm_cell_forward lstm_forward",
        'sigmoid(p["Wo"]',
        'np.tanh(p["Wo"]',
        "a tanh stands for the sigmoid of the output gate",
    ),
    (
        "lstm_cell_forward lstm_forward",
        'sigmoid(p["Wi"]',
        '(p["Wi"]',
        "nothing stands for the sigmoid of the update gate",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ot * np.tanh(c_next)\n",
        "ot * c_next\n",
        "the tanh of a = Γo ∗ tanh(c) is missing",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ot * np.tanh(c_next)\n",
        "ot * sigmoid(c_next)\n",
        "a sigmoid stands for the tanh of a",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ot * np.tanh(c_next)\n",
        "ot * np.tanh(c_prev)\n",
        "a is made of c_prev",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ot * np.tanh(c_next)\n",
        "ot * np.tanh(cct)\n",
        "a is made of c̃",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ft * c_prev + it * cct\n",
        "it * c_prev + ft * cct\n",
        "Γf and Γi are exchanged",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ft * c_prev + it * cct\n",
        "c_prev + it * cct\n",
        "the forget gate is left out",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ft * c_prev + it * cct\n",
        "ft * c_prev + cct\n",
        "the update gate is left out",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ft * c_prev + it * cct\n",
        "ft + c_prev + it * cct\n",
        "a plus stands for the product Γf",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ft * c_prev + it * cct\n",
        "ft * c_prev + (1 - ft) * cct\n",
        "1 − Γf stands for Γi",
    ),
    (
        "lstm_cell_forward lstm_forward",
        "ft * c_prev + it * cct\n",
        "(1 - ft) * c_prev + it * cct\n",
        "the forget gate is the other way round",
    ),
    # forward, the GRUs
    *(
        (f"{name}_cell_forward {name}_forward", "ut * cct + (1 - ut) * c_prev\n", typed, says)
        for name in ("gru", "gru_simplified")
        for typed, says in (
            ("(1 - ut) * cct + ut * c_prev\n", "the update gate is the other way round"),
            ("ut * cct + (1 - ut) + c_prev\n", "a plus stands for the product (1 − Γu) ∗ c_prev"),
            ("ut * cct\n", "the old state is left out"),
            ("ut * cct + c_prev\n", "without its gate"),
        )
    ),
    (
        "gru_cell_forward gru_forward",
        'np.tanh(p["Wc"] @ np.concatenate([rt * c_prev, xt])',
        'np.tanh(rt * (p["Wc"][:, :5] @ c_prev) + p["Wc"][:, 5:] @ xt',
        "the reset stands after the product: ",
    ),
    (
        "gru_cell_forward gru_forward",
        'np.tanh(p["Wc"] @ np.concatenate([rt * c_prev, xt]) + p["bc"])',
        'np.tanh(rt * (p["Wc"][:, :5] @ c_prev + p["bc"]) + p["Wc"][:, 5:] @ xt)',
        "the reset stands after the product and the bias",
    ),
    (
        "gru_cell_forward gru_forward",
        "[rt * c_prev, xt]) +",
        "[c_prev, xt]) +",
        "the reset gate is left out",
    ),
    (
        "gru_cell_forward gru_forward",
        "[rt * c_prev, xt]) +",
        "[(1 - rt) * c_prev, xt]) +",
        "the reset gate is the other way round",
    ),
    (
        "gru_cell_forward gru_forward",
        'rt = sigmoid(p["Wr"] @ concat + p["br"])',
        'rt, ut = ut, sigmoid(p["Wr"] @ concat + p["br"])',
        "Wu and Wr, and their biases, are exchanged",
    ),
    # back, the simple cell
    (
        "rnn_cell_backward rnn_backward",
        "(1 - a_next**2) * da_next",
        "da_next",
        "the derivative of the tanh of the hidden state is forgotten",
    ),
    (
        "rnn_cell_backward rnn_backward",
        "(1 - a_next**2)",
        "a_next * (1 - a_next)",
        "the derivative of a sigmoid stands for that of the tanh",
    ),
    (
        "rnn_cell_backward rnn_backward",
        "(1 - a_next**2)",
        "(1 - a_next)",
        "1 − a_next stands for 1 − a_next²",
    ),
    (
        "rnn_cell_backward rnn_backward",
        "(1 - a_next**2)",
        "(1 - np.tanh(a_next)**2)",
        "the tanh is applied again",
    ),
    ("rnn_cell_backward rnn_backward", "(1 - a_next**2)", "(1 - a_prev**2)", "taken at a_prev"),
    ("rnn_cell_backward rnn_backward", 'p["Waa"].T @ dz', 'p["Waa"] @ dz', "Waa is not transposed"),
    (
        "rnn_cell_backward rnn_backward",
        "dz @ a_prev.T",
        "dz @ a_next.T",
        "a_next stands for a_prev",
    ),
    ("rnn_cell_backward rnn_backward", "dz @ a_prev.T", "a_prev @ dz.T", "dWaa is transposed"),
    ("rnn_cell_backward rnn_backward", "np.sum(dz, axis", "np.mean(dz, axis", "dba: means over"),
    # back, through time
    (
        "rnn_backward",
        "rnn_cell_backward(da[:, :, t] + da_prev",
        "rnn_cell_backward(da[:, :, t]",
        "da_prev is not carried to the step before",
    ),
    (
        "rnn_backward",
        "rnn_cell_backward(da[:, :, t] + da_prev",
        "rnn_cell_backward(da[:, :, t] * (t == T_x - 1) + da_prev",
        "da<t> counts at the last step only",
    ),
    (
        "rnn_backward",
        "in reversed(range(T_x)):\n        back = rnn",
        "in range(T_x):\n        back = rnn",
        "from the first to the last",
    ),
    (
        "rnn_backward",
        "found[key] = found[key] + back[key]",
        "found[key] = back[key]",
        "each overwrites the other's",
    ),
    (
        "rnn_backward",
        "found[key] = found[key] + back[key]",
        "found[key] = found[key] + back[key] / T_x",
        "means over the steps",
    ),
    (
        "lstm_backward",
        "lstm_cell_backward(da[:, :, t] + da_prev, dc_prev",
        "lstm_cell_backward(da[:, :, t], dc_prev",
        "da_prev is not carried to the step before",
    ),
    (
        "lstm_backward",
        "lstm_cell_backward(da[:, :, t] + da_prev, dc_prev",
        "lstm_cell_backward(da[:, :, t] + da_prev, 0 * dc_prev",
        "dc_prev is not carried to the step before",
    ),
    (
        "lstm_backward",
        "lstm_cell_backward(da[:, :, t] + da_prev, dc_prev",
        "lstm_cell_backward(da[:, :, t], 0 * dc_prev",
        "neither da_prev nor dc_prev is carried",
    ),
    ("lstm_backward", ADD, "found[key] = back[key]", "each overwrites the other's"),
    (
        "lstm_backward",
        "dx[:, :, t] = back.pop",
        "dx[:, :, T_x - 1 - t] = back.pop",
        "dx stands in reversed order",
    ),
    (
        "gru_backward gru_simplified_backward",
        "cell(dc[:, :, t] + dc_prev",
        "cell(dc[:, :, t]",
        "dc_prev is not carried to the step before",
    ),
    # back, the LSTM
    (
        "lstm_cell_backward lstm_backward",
        " * ot * (1 - np.tanh(c_next) ** 2)",
        " * ot",
        "1 − tanh²(c_next) is forgotten in dc",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "da_next * ot * (1 - np",
        "da_next * (1 - np",
        "Γo is forgotten in dc",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "np.tanh(c_next) ** 2",
        "c_next ** 2",
        "1 − c_next² stands for",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dc_next + da_next * ot * (1 - np.tanh(c_next) ** 2)",
        "dc_next",
        "da_next's share of dc is forgotten",
    ),
    ("lstm_cell_backward", "dc = dc_next + da_next", "dc = da_next", "dc_next is forgotten"),
    (
        "lstm_cell_backward",
        '"dc_prev": dc * ft',
        '"dc_prev": dc_next * ft',
        "dc_prev has the share of dc_next only",
    ),
    (
        "lstm_cell_backward lstm_backward",
        '"dc_prev": dc * ft',
        '"dc_prev": dc',
        "dc_prev lacks the forget gate",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dot = da_next * np.tanh(c_next)",
        "dot = da_next * c_next",
        "c_next stands for tanh(c_next) in dΓo",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dc * c_prev * ft",
        "dc * c_next * ft",
        "c_next stands for c_prev in dΓf",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dc * c_prev * ft * (1 - ft)",
        "dc * c_prev",
        "the derivative of the sigmoid of the forget gate is forgotten",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dc * it * (1 - cct**2)",
        "dc * it",
        "the derivative of the tanh of the candidate is forgotten",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "(1 - cct**2)",
        "cct * (1 - cct)",
        "the derivative of a sigmoid stands for that of the tanh of the candidate",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "(1 - cct**2)",
        "(1 - np.tanh(cct)**2)",
        "the tanh is applied again: 1 − tanh²(c̃)",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "\n    dft = dc * c_prev * ft * (1 - ft)",
        "\n    dw = da_next * ot * (1 - np.tanh(c_next) ** 2)"
        "\n    dit = dc_next * cct + dw * cct * it * (1 - it)"
        "\n    dcct = dc_next * it + dw * it * (1 - cct**2)"
        "\n    dft = dc_next * c_prev + dw * c_prev * ft * (1 - ft)",
        "the parentheses are dropped",
    ),
    (
        "lstm_cell_backward lstm_backward",
        BACK_READS,
        BACK_READS.replace("a_prev, xt", "xt, a_prev"),
        "the other way round, [xt; a_prev], in dWf",
    ),
    (
        "lstm_cell_backward lstm_backward",
        '"dxt": dconcat[n_a:], "da_prev": dconcat[:n_a]',
        '"dxt": dconcat[:-n_a], "da_prev": dconcat[-n_a:]',
        "the columns for a_prev and xt are exchanged",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "concat = np.concatenate([a_prev, xt])\n    dc",
        "concat = np.concatenate([a_next, xt])\n    dc",
        "a_next stands for a_prev in the gradients",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "c_prev, ft, it, cct, ot, xt, p = cache",
        "c_prev, it, ft, cct, ot, xt, p = cache",
        "ft and it are exchanged where the cache",
    ),
    (
        "lstm_cell_backward lstm_backward",
        '{"f": dft, "i": dit,',
        '{"f": dit, "i": dft,',
        "gradients are exchanged everywhere",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dit = dc * cct * it * (1 - it)",
        "dit = dc * c_prev * it * (1 - it)",
        "c_prev stands for c̃ in dΓi",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dft = dc * c_prev",
        "dft = dc * cct",
        "c̃ stands for c_prev in dΓf",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "dcct = dc * it",
        "dcct = dc * ft",
        "Γf stands for Γi in dc̃",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "np.sum(d, axis=1",
        "np.mean(d, axis=1",
        "means over the ex",
    ),
    (
        "lstm_cell_backward lstm_backward",
        "for gate, d in gates.items())",
        'for gate, d in gates.items() if gate != "o")',
        "the output gate's share is missing",
    ),
    # back, the GRUs
    (
        "gru_cell_backward gru_backward",
        "+ rt * dreset + (1 - ut) * dc_next",
        "+ rt * dreset",
        "the direct way is forgotten",
    ),
    (
        "gru_cell_backward gru_backward",
        "+ rt * dreset + (1 - ut) * dc_next",
        "+ rt * dreset + dc_next",
        "the direct way has no gate",
    ),
    ("gru_cell_backward gru_backward", "+ rt * dreset", "+ dreset", "Γr is forgotten in dc_prev"),
    (
        "gru_cell_backward gru_backward",
        "dcct @ np.concatenate([rt * c_prev, xt]).T",
        "dcct @ concat.T",
        "Γr is forgotten in dWc",
    ),
    (
        "gru_cell_backward gru_backward gru_simplified_backward",
        "(cct - c_prev)",
        "cct",
        "c_prev is forgotten in dΓu",
    ),
    (
        "gru_cell_backward gru_simplified_cell_backward",
        "(cct - c_prev)",
        "(c_prev - cct)",
        "dΓu has the wrong sign",
    ),
    (
        "gru_cell_backward gru_simplified_cell_backward",
        "dcct = dc_next * ut * (1 - cct**2)",
        "dcct = dc_next * ut",
        "the derivative of the tanh of the candidate is forgotten",
    ),
    (
        "gru_cell_backward gru_backward",
        "drt = dreset * c_prev * rt * (1 - rt)",
        "drt = dreset * c_prev",
        "the derivative of the sigmoid of the reset gate is forgotten",
    ),
    # the character lab
    ("clip", "-maxValue, maxValue)", "None, maxValue)", "nothing is clipped from below"),
    ("clip", "-maxValue, maxValue)", "-maxValue, None)", "nothing is clipped from above"),
    ("clip", "-maxValue, maxValue)", "0, maxValue)", "the lower bound is 0"),
    (
        "clip",
        "np.clip(array, -maxValue, maxValue)",
        "array * min(1, maxValue / np.linalg.norm(array))",
        "each array is scaled by its norm",
    ),
    ("clip", "np.clip(array, -maxValue, maxValue)", "array", "nothing is clipped"),
    ("sample", "        a_prev = a\n", "", "the state is not carried"),
    ("sample", "        x[idx] = 1\n", "", "what was drawn is not fed back"),
    ("sample", ' + p["b"])\n        y =', ")\n        y =", "b is forgotten"),
    (
        "sample",
        "np.random.choice(range(len(y)), p=y.ravel())",
        "int(np.argmax(y))",
        "by is forgotten",
    ),
    (
        "sample",
        "        indices.append(idx)\n",
        "        if idx: indices.append(idx)\n",
        "the newline that ends the name is left out",
    ),
    (
        "optimize",
        "loss -= np.log(y[t][Y[t], 0])",
        "loss -= np.log(y[t][Y[t], 0]) / len(X)",
        "the loss is a mean",
    ),
    ("optimize", "np.log(y[t]", "np.log2(y[t]", "the loss is in bits"),
    ("optimize", "    gradients = clip(gradients, 5)\n", "", "the gradients are not clipped"),
    ("optimize", "p[key] -= learning_rate", "p[key] += learning_rate", "goes up the gradient"),
    ("optimize", "p[key] -= learning_rate * ", "p[key] -= ", "the learning rate is forgotten"),
    (
        "optimize",
        "    for key in p:\n        p[key] -=",
        "    for key in p:\n        p[key] - ",
        "the parameters are not updated",
    ),
    ("optimize", "{-1: a_prev}", "{-1: 0 * a_prev}", "a_prev is ignored"),
    ("optimize", "@ dy + da_prev", "@ dy", "da_prev is not carried"),
    ("optimize", "dy[Y[t]] -= 1", "dy[Y[t]] -= 0", "Y is not subtracted"),
]
