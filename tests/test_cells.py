"""The catalogue against published numbers, against torch.nn, and `Cell` as people use it."""

import numpy as np
import pytest
from own_cells import OWN_CELLS

import unrolled
from unrolled import Cell, InputError, SizeError, cells

# Values of the course's laboratory for stated draws (seed 1), recomputed in float64 by independent
# implementations. Arrays there are (n, m, T) with examples as columns; weights act on [a_prev; x].


def draws(*shapes):
    rng = np.random.RandomState(1)
    return [rng.randn(*shape) for shape in shapes]


def split(weights, size=5):
    """[a_prev; x] weights → (U, W)."""
    return weights[:, :size], weights[:, size:]


def run(cell, x, states, params):
    """Run a cell on the course's layout; a state's row (n, m, T) back."""
    trace = cell.trace(x.transpose(2, 1, 0), params, [state.T for state in states])
    return {name: array.transpose(2, 1, 0) for name, array in trace.items()}


def lstm_parameters(weights, order="fioc"):
    names = dict(zip("fioc", "fiog", strict=True))
    params = {}
    for gate, W, b in zip(order, weights[::2], weights[1::2], strict=True):
        params[f"U.{names[gate]}"], params[f"W.{names[gate]}"] = split(W)
        params[f"b.{names[gate]}"] = b[:, 0]
    return params


def test_the_simple_network():
    x, a0, U, W, _, b, _ = draws((3, 10, 4), (5, 10), (5, 5), (5, 3), (2, 5), (5, 1), (2, 1))
    a = run(cells.simple, x, [a0], {"W.h": W, "U.h": U, "b.h": b[:, 0]})["h"]
    expected = [-0.9999937511218437, 0.7791123524295185, -0.9986146863678004, -0.9983326666674084]
    np.testing.assert_allclose(a[4][1], expected, rtol=1e-12)
    assert a.sum() == pytest.approx(53.62884406023703, rel=1e-12)


def test_the_lstm():
    gate = [(5, 8), (5, 1)]
    x, a0, *weights = draws((3, 10, 7), (5, 10), *gate * 4)
    trace = run(cells.lstm, x, [a0, np.zeros((5, 10))], lstm_parameters(weights))
    assert trace["h"][4][3][6] == pytest.approx(0.1721177675329167, rel=1e-12)
    assert trace["c"][1][2][1] == pytest.approx(-0.8555449167181983, rel=1e-12)


# section by cell: (row c[4][1] over T = 4, c[1][2][1], sum)
GRU = {
    "gru_simplified": (
        [0.6292305581061847, -0.07343592012385348, 0.12032176557045779, -0.16181714807154818],
        -0.5844972178475188,
        -20.319828790660246,
    ),
    "gru_original": (
        [0.8258077023193531, -0.07845814990162336, 0.1226213427659961, -0.5003894003399991],
        -0.6086556443821876,
        -23.461148092443494,
    ),
    "gru": (
        [0.4223384653418985, -0.16983880847480204, -0.01479458715508054, -0.333697519095193],
        -0.5824838470771864,
        -14.126260294425355,
    ),
}


@pytest.mark.parametrize("name", GRU)
def test_grus(name):
    """The course's update gate replaces and ours keeps: z = 1 − Γ, so its weights change sign."""
    x, c0, Wu, bu, Wr, br, Wc, bc = draws(
        (3, 10, 4), (5, 10), (5, 8), (5, 1), (5, 8), (5, 1), (5, 8), (5, 1)
    )
    params = {}
    for block, weights, bias in (("z", -Wu, -bu), ("r", Wr, br), ("n", Wc, bc)):
        if block == "r" and name == "gru_simplified":
            continue
        params[f"U.{block}"], params[f"W.{block}"] = split(weights)
        params[f"b.{block}"] = bias[:, 0]
    if name == "gru":
        params["b_U.n"] = np.zeros(5)  # the course's bias stands outside the reset
    h = run(getattr(cells, name), x, [c0], params)["h"]
    row, one, total = GRU[name]
    np.testing.assert_allclose(h[4][1], row, rtol=1e-12)
    assert h[1][2][1] == pytest.approx(one, rel=1e-12)
    assert h.sum() == pytest.approx(total, rel=1e-12)


LSTM = {  # a[4][1] over T = 4, c[1][2][1], sum(a)
    "lstm": (
        [-0.26393208115368344, 0.21198977211583522, 0.2880028660287752, 0.11958467690478904],
        -0.6879063711694743,
        2.447477078759351,
    ),
    "peephole_lstm": (
        [-0.7662103791246107, 0.05742156814314892, 0.0910003286061118, 0.0725193347066819],
        -0.49701600512925215,
        6.168889065590831,
    ),
    "coupled_lstm": (
        [-0.2513490420687215, 0.204257231813988, 0.28349998171559276, 0.2992653069170367],
        -0.9095753701504342,
        6.150453685186911,
    ),
}


@pytest.mark.parametrize("name", LSTM)
def test_lstms(name):
    gate = [(5, 8), (5, 1)]
    x, a0, c0, *rest = draws((3, 10, 4), (5, 10), (5, 10), *gate * 4, *[(5, 1)] * 3)
    params = lstm_parameters(rest[:8])
    if name == "peephole_lstm":
        params |= {f"P.{k}": p[:, 0] for k, p in zip("fio", rest[8:], strict=True)}
    if name == "coupled_lstm":
        params = {key: array for key, array in params.items() if not key.endswith(".i")}
    trace = run(getattr(cells, name), x, [a0, c0], params)
    row, one, total = LSTM[name]
    np.testing.assert_allclose(trace["h"][4][1], row, rtol=1e-12)
    assert trace["c"][1][2][1] == pytest.approx(one, rel=1e-12)
    assert trace["h"].sum() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "module", "options"),
    [
        ("lstm", "LSTM", {}),
        ("gru", "GRU", {}),
        ("simple", "RNN", {}),
        ("simple_relu", "RNN", {"nonlinearity": "relu"}),
        ("projected_lstm", "LSTM", {"proj_size": 3}),
    ],
)
def test_cells_are_those_of_torch(name, module, options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    cell = getattr(cells, name)
    peer = getattr(torch.nn, module)(4, 6, dtype=torch.float64, **options)
    weights = {key: value.detach().numpy() for key, value in peer.named_parameters()}
    blocks = cell.blocks["W"]
    params = {}
    for number, block in enumerate(blocks):
        rows = slice(6 * number, 6 * number + 6)
        params[f"W.{block}"] = weights["weight_ih_l0"][rows]
        params[f"U.{block}"] = weights["weight_hh_l0"][rows]
        b, b_U = weights["bias_ih_l0"][rows], weights["bias_hh_l0"][rows]
        inside = name == "gru" and block == "n"
        params[f"b.{block}"] = b if inside else b + b_U
        if inside:
            params["b_U.n"] = b_U
    if "proj_size" in options:
        params["V.h"] = weights["weight_hr_l0"]
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    y, last = cell.run(x, params)
    with torch.no_grad():
        expected, expected_last = peer(torch.from_numpy(x))
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-14)
    pairs = zip(last, expected_last, strict=True) if module == "LSTM" else [(last, expected_last)]
    for one, other in pairs:
        np.testing.assert_allclose(one, other[0].numpy(), rtol=1e-12, atol=1e-14)


# Cell, as people use it

CATALOGUE = cells.catalogue()


def test_the_catalogue():
    assert list(CATALOGUE) == [
        *("lstm", "gru", "gru_original", "gru_simplified", "simple", "simple_relu"),
        *("peephole_lstm", "coupled_lstm", "projected_lstm"),
    ]
    for name, cell in CATALOGUE.items():
        assert cell.name == name
        assert any(year in cell.equations.doc for year in ("19", "20")), "a source has a year"
    assert cells.lstm.blocks == {"W": (*"ifgo",), "U": (*"ifgo",), "b": (*"ifgo",)}
    assert cells.gru.blocks["W"] == ("r", "z", "n")


@pytest.mark.parametrize("cell", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_run_and_trace_agree_and_follow_the_dtype(cell):
    for dtype in (np.float32, np.float64):
        params = cell.init(3, 5, rng=0, dtype=dtype)
        x = np.random.default_rng(1).standard_normal((6, 2, 3)).astype(dtype)
        y, last = cell.run(x, params)
        trace = cell.trace(x, params)
        assert y.dtype == dtype
        np.testing.assert_array_equal(trace[cell.states[0]], y)
        first = last if len(cell.states) == 1 else last[0]
        np.testing.assert_array_equal(first, y[-1])
        assert set(trace) == {
            "x",
            *cell.states,
            *(f"{state}_prev" for state in cell.states),
            *(equation.name for equation in cell.equations.equations),
        }
        np.testing.assert_array_equal(trace["h_prev"][1:], y[:-1])
        assert (trace["h_prev"][0] == 0).all()


def test_a_trace_satisfies_the_equations():
    """Column by column, with the equations written out once more here."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    rng = np.random.default_rng(1)
    x, p = rng.standard_normal((6, 2, 3)), cells.lstm.init(3, 5, rng)
    v = cells.lstm.trace(x, p, [rng.standard_normal((2, 5)) for _ in range(2)])
    assert list(v) == ["x", "h_prev", "c_prev", "i", "f", "g", "o", "c", "h"]
    gates = {k: x @ p[f"W.{k}"].T + v["h_prev"] @ p[f"U.{k}"].T + p[f"b.{k}"] for k in "ifgo"}
    for k in "ifo":
        np.testing.assert_allclose(v[k], sigmoid(gates[k]), rtol=1e-12)
    np.testing.assert_allclose(v["g"], np.tanh(gates["g"]), rtol=1e-12)
    np.testing.assert_array_equal(v["c"], v["f"] * v["c_prev"] + v["i"] * v["g"])
    np.testing.assert_allclose(v["h"], v["o"] * np.tanh(v["c"]), rtol=1e-15)
    np.testing.assert_array_equal(v["c_prev"][1:], v["c"][:-1])

    p = cells.gru.init(3, 5, rng)
    v = cells.gru.trace(x, p)
    assert list(v) == ["x", "h_prev", "r", "z", "n", "h"]
    inner = v["r"] * (v["h_prev"] @ p["U.n"].T + p["b_U.n"])
    np.testing.assert_allclose(v["n"], np.tanh(x @ p["W.n"].T + p["b.n"] + inner), rtol=1e-12)
    mixed = v["n"] + v["z"] * (v["h_prev"] - v["n"])
    np.testing.assert_allclose(v["h"], mixed, rtol=1e-12, atol=1e-15)


def test_one_sequence_needs_no_batch():
    cell, params = cells.lstm, cells.lstm.init(3, 5, rng=0)
    x = np.random.default_rng(1).standard_normal((6, 3))
    y, (h, c) = cell.run(x, params, (np.ones(5), np.ones(5)))
    together, _ = cell.run(x[:, None], params, (np.ones((1, 5)), np.ones((1, 5))))
    assert (y.shape, h.shape, c.shape) == ((6, 5), (5,), (5,))
    np.testing.assert_array_equal(y, together[:, 0])


def test_parameters_are_drawn_from_the_seed_within_their_bounds():
    once, again = (cells.gru.init(30, 40, rng=7) for _ in range(2))
    assert once.keys() == cells.gru.sizes.shapes.keys()
    for name, array in once.items():
        np.testing.assert_array_equal(array, again[name])
        assert np.abs(array).max() <= 40**-0.5
        assert np.abs(array).max() > 0.8 * 40**-0.5
    assert (cells.gru.init(3, 4, rng=8)["W.r"] != cells.gru.init(3, 4, rng=9)["W.r"]).all()


def test_sizes_of_their_own():
    params = cells.projected_lstm.init(3, {"h": 2, "c": 5}, rng=0)
    assert params["V.h"].shape == (2, 5)
    y, (h, c) = cells.projected_lstm.run(np.zeros((4, 1, 3)), params)
    assert (y.shape, h.shape, c.shape) == ((4, 1, 2), (1, 2), (1, 5))


@pytest.mark.parametrize(
    ("value", "found"),
    [(float("nan"), "nan"), (float("inf"), "inf"), ("a", "'a'"), (True, "True"), (None, "None")],
)
def test_a_constant_is_a_finite_number(value, found):
    cell = Cell.parse("def f(x, h_prev, *, dt=0.5):\n    h = h_prev + dt * x\n    return h\n")
    with pytest.raises(unrolled.EquationError) as error:
        cell.with_(dt=value)
    assert str(error.value) == (
        f"the constant dt of cell 'f' is a finite number, as in dt=0.1; found {found}."
    )
    for number in (2, np.float32(2)):
        changed = cell.with_(dt=number)
        assert type(changed.constants["dt"]) is float
        assert Cell.parse(changed.text) == changed


def test_constants_can_be_changed():
    leaky = Cell.parse(
        "def leaky(x, h_prev, *, W, dt=0.5):\n"
        "    h = h_prev + dt * (tanh(W.h @ x) - h_prev)\n"
        "    return h\n"
    )
    slow = leaky.with_(dt=0.25)
    assert (leaky.constants, slow.constants) == ({"dt": 0.5}, {"dt": 0.25})
    assert Cell.parse(slow.text) == slow != leaky
    params, x = leaky.init(2, 3, rng=0), np.ones((1, 1, 2))
    np.testing.assert_allclose(2 * slow.run(x, params)[0], leaky.run(x, params)[0])
    with pytest.raises(
        unrolled.EquationError,
        match=r"^cell 'leaky' has no constant 'tau'; its constants are: dt\.$",
    ):
        leaky.with_(tau=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p.pop("U.h"),
            "cell 'simple' needs the parameters U.h; given are W.h, b.h. "
            "cell.init(…) draws a full set.",
        ),
        (
            lambda p: p.update(V=1),
            "cell 'simple' has no parameters V; it has W.h, U.h, b.h.",
        ),
        (
            lambda p: p.update({"U.h": np.zeros((4, 5))}),
            "parameter U.h of cell 'simple' has shape (4, 5); expected (4, 4), that is (H, H).",
        ),
        (
            lambda p: p.update({"W.h": np.zeros((4, 2))}),
            "parameter W.h of cell 'simple' has shape (4, 2); expected (H, 3), that is (H, I).",
        ),
        (
            lambda p: p.update({"b.h": 1.0}),
            "parameter b.h of cell 'simple' has shape (); expected (4), that is (H).",
        ),
        (
            lambda p: p.update({"b.h": ["a", "b", "c", "d"]}),
            "parameter b.h of cell 'simple' is an array of real numbers; found one of <U1.",
        ),
        (
            lambda p: p.clear(),
            "cell 'simple' needs the parameters W.h, U.h, b.h; given are none. "
            "cell.init(…) draws a full set.",
        ),
    ],
)
def test_parameters_that_do_not_fit(change, message):
    params = cells.simple.init(3, 4, rng=0)
    change(params)
    with pytest.raises(InputError) as error:
        cells.simple.run(np.zeros((2, 1, 3)), params)
    assert str(error.value) == message


ZERO = np.zeros((2, 1, 3))


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (
            np.zeros(3),
            None,
            "cell 'lstm' takes an input of shape (T, B, I), or (T, I) for one sequence; "
            "found (3,).",
        ),
        (
            ZERO * 1j,
            None,
            "the input of cell 'lstm' is an array of real numbers; found one of complex128.",
        ),
        (
            ZERO,
            np.zeros((1, 4)),
            "the initial state of cell 'lstm' is one array for each of its states (h, c); found 1.",
        ),
        (
            ZERO,
            (np.zeros((1, 4)), np.zeros((1, 5))),
            "the initial state c of cell 'lstm' has shape (1, 5); expected (1, 4).",
        ),
        (
            ZERO[:, 0],
            (np.zeros((1, 4)), np.zeros(4)),
            "the initial state h of cell 'lstm' has shape (1, 4); expected (4,).",
        ),
        (
            ZERO,
            (0.0, np.zeros((1, 4))),
            "the initial state h of cell 'lstm' is one number; expected (1, 4).",
        ),
        (
            ZERO,
            (np.zeros((1, 4)), np.array([["a"] * 4])),
            "the initial state c of cell 'lstm' is an array of real numbers; found one of <U1.",
        ),
    ],
)
def test_inputs_and_states_that_do_not_fit(x, state, message):
    with pytest.raises(InputError) as error:
        cells.lstm.run(x, cells.lstm.init(3, 4, rng=0), state)
    assert str(error.value) == message


def test_a_state_whose_size_nothing_tells_is_asked_for():
    cell = Cell.parse("def fade(x, h_prev):\n    h = tanh(h_prev)\n    return h\n")
    with pytest.raises(InputError) as error:
        cell.run(ZERO, {})
    assert str(error.value) == (
        "no parameter of cell 'fade' tells the size of the state h; "
        "give the initial state, an array (B, size)."
    )
    y, _ = cell.run(ZERO, {}, np.ones((1, 5)))
    assert y.shape == (2, 1, 5)


def test_no_steps_and_no_rows():
    cell, params = cells.projected_lstm, cells.projected_lstm.init(3, {"h": 2, "c": 5}, rng=0)
    start = (np.ones((4, 2)), np.ones((4, 5)))
    y, last = cell.run(np.zeros((0, 4, 3)), params, start)
    assert y.shape == (0, 4, 2)
    for state, given in zip(last, start, strict=True):
        np.testing.assert_array_equal(state, given)
    y, last = cell.run(np.zeros((6, 0, 3)), params)
    assert [y.shape, *(state.shape for state in last)] == [(6, 0, 2), (0, 2), (0, 5)]
    assert cell.trace(np.zeros((0, 3)), params)["c"].shape == (0, 5)


def test_sizes_that_cannot_agree():
    with pytest.raises(SizeError, match="two sizes cannot agree: 3"):
        Cell.parse("def f(x, h_prev):\n    h = x + h_prev\n    return h\n").init(3, 4)


def test_recurrent_blocks_are_those_that_meet_the_step_before():
    assert cells.lstm.recurrent_blocks == ("U.i", "U.f", "U.g", "U.o")
    assert cells.gru_original.recurrent_blocks == ("U.r", "U.z", "U.n")
    assert {"P.i", "P.f", "P.o"} < {*cells.peephole_lstm.recurrent_blocks}
    assert OWN_CELLS["deep_input"].recurrent_blocks == ("U.h",)
    assert OWN_CELLS["elementwise"].recurrent_blocks == ("P.h",)
