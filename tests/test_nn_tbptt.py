"""Truncated BPTT against loops made by hand: step by step, with `detach` where it belongs."""

import itertools
import weakref

import pytest
import torch
from hypothesis import example, given, settings, strategies as st

import unrolled
from unrolled import Cell, InputError, cells
from unrolled.nn import GRU, LSTM, Recurrent, tbptt

DOUBLE = torch.float64
B, X, H = 3, 2, 4
CLOCK = Cell.parse("def clock(x, h_prev, *, W):\n    h = W.h @ x / t + 0.5 * h_prev\n    return h")


def several(state):
    return state if isinstance(state, tuple) else (state,)


def one(parts):
    return parts[0] if len(parts) == 1 else tuple(parts)


def layer_of(cell=cells.lstm, layers=1, backend="reference", **options):
    torch.manual_seed(0)
    options = {"dtype": DOUBLE, "backend": backend, **options}
    layer = Recurrent(cell, X, H, layers, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def data(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE)


def by_hand(layer, x, weights, k1, k2, learn, resets=None):
    """What a loop over single steps finds: the gradients of each window's loss, and all outputs.

    The states of every step are noted as they were when it last ran, so that a window starts from
    the state of `k2` steps back.
    """
    state = tuple(torch.zeros(layer.num_layers, B, H, dtype=DOUBLE) for _ in layer.cell.states)
    noted = {0: state}
    gradients, outputs = [], []
    for new in range(0, len(x), k1):
        stop = min(new + k1, len(x))
        first = max(0, new + k1 - k2) if k2 > k1 else new
        state = noted[first]
        loss, found = 0, []
        for t in range(first, stop):
            mark = None if resets is None else resets[t : t + 1]
            y, state = layer(x[t : t + 1], one(state), resets=mark)
            state = several(state)
            if t < stop - k2 and k2 < k1:
                y, state = y.detach(), tuple(part.detach() for part in state)
            noted[t + 1] = tuple(part.detach() for part in state)
            if t >= new:
                loss = loss + (y[0] * weights[t]).sin().sum()
                found.append(y[0].detach())
        outputs += found
        gradients.append(torch.autograd.grad(loss, list(layer.parameters())))
        learn(gradients[-1])
    return gradients, torch.stack(outputs)


def by_windows(layer, x, weights, k1, k2, learn, resets=None):
    gradients, outputs = [], []
    stream = (x, weights) if resets is None else (x, weights, resets)
    for window in tbptt(stream, k1, k2):
        x, weight, *marks = window.data
        y = window.new(window.run(layer, x, resets=marks[0] if marks else None))
        loss = (y * window.new(weight)).sin().sum()
        outputs.append(y.detach())
        gradients.append(torch.autograd.grad(loss, list(layer.parameters())))
        learn(gradients[-1])
    return gradients, torch.cat(outputs)


def descent(layer):
    def learn(gradients):
        with torch.no_grad():
            for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient

    return learn


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def assert_as_by_hand(T, k1, k2, cell=cells.gru, resets=None, learns=True, **options):
    found = []
    for way in (by_windows, by_hand):
        layer = layer_of(cell, **options)
        learn = descent(layer) if learns else lambda _: None
        found.append(way(layer, data(T, B, X), data(T, B, H), k1, k2, learn, resets))
    assert_close(*found)
    return found[0]


# the windows


def test_the_three_forms():
    def places(T, k1, k2):
        return [(w.start, w.stop, w.last) for w in tbptt(torch.zeros(T, 1, 1), k1, k2)]

    cut = [(0, 3, False), (3, 6, False), (6, 7, True)]
    assert places(7, 3, None) == places(7, 3, 3) == places(7, 3, 1) == cut
    assert places(6, 3, 3) == [(0, 3, False), (3, 6, True)]
    assert places(9, 2, 5) == [(0, 2, False), (0, 4, False), (1, 6, False), (3, 8, False),
                               (5, 9, True)]  # fmt: skip
    assert places(2, 5, 9) == [(0, 2, True)]
    assert places(0, 5, 9) == []


def test_tensors_are_cut_alike():
    x, y = torch.arange(10).view(10, 1), torch.arange(10, 20)
    for window in tbptt((x, y), 3, 4):
        assert window.data[0][:, 0].tolist() == list(range(window.start, window.stop))
        assert (window.data[1] - 10).tolist() == list(range(window.start, window.stop))
    new = [window.new(window.data).tolist() for window in tbptt(y, 3, 5)]
    assert new == [[10, 11, 12], [13, 14, 15], [16, 17, 18], [19]]
    (window,) = tbptt(torch.zeros(2, 5, 3), 9, batch_first=True)
    assert (window.start, window.stop) == (0, 5)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    k1=st.integers(1, 6),
    k2=st.integers(1, 9),
)
def test_chunks_give_the_windows_of_the_whole(lengths, k1, k2):
    whole = torch.arange(sum(lengths) * 2).view(-1, 2)
    expected = [(w.start, w.stop, w.data.tolist(), w.last) for w in tbptt(whole, k1, k2)]
    chunks = whole.split(lengths)
    found = [(w.start, w.stop, w.data.tolist(), w.last) for w in tbptt(list(chunks), k1, k2)]
    assert found == expected
    pairs = ((chunk, -chunk) for chunk in chunks)
    assert [w.data[1].tolist() for w in tbptt(pairs, k1, k2)] == [
        (-whole[w.start : w.stop]).tolist() for w in tbptt(whole, k1, k2)
    ]


def test_an_endless_stream_in_constant_memory():
    drawn = []

    def steps():
        for t in itertools.count():
            drawn.append(t)
            yield torch.full((1, B, X), float(t), dtype=DOUBLE)

    layer = layer_of(cells.simple)
    for window in tbptt(steps(), 2, 5):
        window.run(layer)
        assert len(drawn) == window.stop  # none is drawn before it is needed
        held = [tensor.shape[0] for tensor in window._steps._tensors]
        assert max(held) <= 7
        assert len(window._states._kept[layer]) <= 6
        if window.stop == 40:
            break
    assert not window.last
    assert len(drawn) == 41


# gradients


@settings(max_examples=25, deadline=None)
@given(T=st.integers(1, 12), k1=st.integers(1, 6), k2=st.integers(1, 9), learns=st.booleans())
@example(T=12, k1=4, k2=4, learns=True)
@example(T=11, k1=2, k2=5, learns=True)
@example(T=11, k1=5, k2=2, learns=True)
@example(T=9, k1=3, k2=7, learns=False)
def test_gradients_are_those_of_a_loop_by_hand(T, k1, k2, learns):
    assert_as_by_hand(T, k1, k2, learns=learns)


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 5), (4, 2)])
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_deep_layers_with_several_states_on_every_backend(backend, k1, k2):
    assert_as_by_hand(10, k1, k2, cells.lstm, layers=2, backend=backend)
    assert_as_by_hand(10, k1, k2, cells.lstm, layers=2, backend=backend, recompute=True)


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 5), (4, 2)])
def test_resets_stand_among_the_data(k1, k2):
    resets = torch.rand(11, B, generator=torch.Generator().manual_seed(2)) < 0.3
    assert resets.any()
    assert_as_by_hand(11, k1, k2, cells.lstm, resets)


@settings(max_examples=20, deadline=None)
@given(T=st.integers(1, 9), k1=st.integers(1, 9))
def test_with_a_k2_that_reaches_everything_the_sum_is_full_bptt(T, k1):
    layer, x, weights = layer_of(cells.gru), data(T, B, X), data(T, B, H)
    gradients, y = by_windows(layer, x, weights, k1, T + k1, lambda _: None)
    expected, _ = layer(x)
    whole = torch.autograd.grad((expected * weights).sin().sum(), list(layer.parameters()))
    assert_close([sum(parts) for parts in zip(*gradients, strict=True)], list(whole))
    assert_close(y, expected.detach())


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_every_step_is_the_step_of_the_whole(draw):
    T = draw.draw(st.integers(1, 9))
    k1, k2 = draw.draw(st.integers(1, 9)), draw.draw(st.integers(1, 9))
    lengths = draw.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    marks = draw.draw(st.lists(st.booleans(), min_size=T * B, max_size=T * B))
    resets = torch.tensor(marks).view(T, B)
    layer, x = layer_of(layers=2, initial_state="learned"), data(T, B, X)
    y, last = layer(x, lengths=lengths, resets=resets)
    found = []
    for window in tbptt((x, resets), k1, k2):
        _, marked = window.data
        found.append(window.new(window.run(layer, lengths=lengths, resets=marked)))
    assert_close(torch.cat(found), y)
    assert_close(window.state(layer), tuple(part.detach() for part in last))


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 7), (4, 1)])
def test_masks_of_the_windows_are_those_of_the_whole(k1, k2):
    layer = layer_of(unrolled.zoneout(unrolled.recurrent_dropout(cells.gru, 0.5), 0.3), layers=2)
    x, masks = data(9, B, X), layer.draw_masks(9, B)
    y, last = layer(x, masks=masks)
    found = []
    for window in tbptt(x, k1, k2):
        steps = slice(window.start, window.stop)
        mine = [{n: m if m.dim() == 2 else m[steps] for n, m in one.items()} for one in masks]
        found.append(window.new(window.run(layer, masks=mine)))
    assert_close(torch.cat(found), y)
    assert_close(window.state(layer), last.detach())


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 7), (4, 1)])
def test_masks_of_other_steps_than_the_windows_get_a_sentence(k1, k2):
    layer = layer_of(unrolled.zoneout(cells.gru, 0.3))
    (window, *_) = tbptt(data(9, B, X), k1, k2)
    with pytest.raises(InputError, match="the mask keep_h is a tensor"):
        window.run(layer, masks=layer.draw_masks(9, B))
    with pytest.raises(InputError, match="masks are a list with one dictionary"):
        window.run(layer, masks=layer.draw_masks(window.stop, B) * 2)


def test_where_the_gradient_ends():
    layer = layer_of()
    for k1, k2, reach in ((3, 3, [3, 3, 3]), (3, 5, [3, 5, 5]), (3, 1, [1, 1, 1])):
        found = []
        for window in tbptt(data(9, B, X), k1, k2):
            x = window.data.clone().requires_grad_()
            window.run(layer, x)[-1].sum().backward()
            found.append(int(x.grad.abs().sum((1, 2)).gt(0).sum()))
            assert not x.grad[: len(x) - found[-1]].any()
        assert found == reach


# states


def test_several_layers_each_have_a_state():
    first, second = layer_of(cells.lstm), Recurrent(cells.gru, H, H, dtype=DOUBLE)
    x = data(10, B, X)
    expected = second(first(x)[0])[0]
    for k1, k2 in ((3, 3), (3, 7), (4, 1)):
        found = []
        for window in tbptt(x, k1, k2):
            below = window.run(first)
            found.append(window.new(window.run(second, below)))
        assert_close(torch.cat(found), expected)
        assert_close(window.state(second), second(first(x)[0])[1].detach())


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 7), (4, 1)])
def test_the_first_state_given(k1, k2):
    layer, x = layer_of(), data(8, B, X)
    state = data(1, B, H), data(1, B, H) / 2
    windows = tbptt(x, k1, k2, states={layer: state})
    assert_close(torch.cat([w.new(w.run(layer)) for w in windows]), layer(x, state)[0])


def test_a_stream_goes_on_with_the_state_of_another():
    layer, x = layer_of(), data(8, B, X)
    for window in tbptt(x[:5], 2):
        window.run(layer)
    rest = tbptt(x[5:], 2, states={layer: window.state(layer)})
    assert_close(torch.cat([w.run(layer) for w in rest]), layer(x)[0][5:])


def test_gradients_reach_a_learned_and_a_given_first_state():
    layer = layer_of(cells.gru, initial_state="learned")
    found = []
    for window in tbptt(data(6, B, X), 2, 3):
        (gradient,) = torch.autograd.grad(
            window.run(layer)[-1].sum(), layer.h_0_l0, allow_unused=True, materialize_grads=True
        )
        found.append(bool(gradient.abs().sum()))
    assert found == [True, False, False]
    state = data(1, B, H).requires_grad_()
    first, *_ = tbptt(data(6, B, X), 2, states={layer: state})
    first.run(layer).sum().backward()
    assert state.grad.abs().sum() > 0


def test_a_window_that_is_run_again_starts_from_the_same_state():
    layer, found = layer_of(cells.gru), []
    for window in tbptt(data(9, B, X), 2, 5):
        y = window.run(layer)
        assert_close(window.run(layer), y)
        assert_close(window.state(layer), y[-1:].detach())
        found.append(window.new(y))
    assert_close(torch.cat(found), layer(data(9, B, X))[0])


def test_batch_first_and_one_sequence():
    x = data(B, 7, X)
    layer = layer_of(batch_first=True)
    for k1, k2 in ((3, 3), (2, 5), (4, 1)):
        lengths = [7, 0, 4]
        windows = tbptt(x, k1, k2, batch_first=True)
        found = [w.new(w.run(layer, lengths=lengths)) for w in windows]
        assert_close(torch.cat(found, 1), layer(x, lengths=lengths)[0])
        alone = [w.new(w.run(layer, lengths=[5])) for w in tbptt(x[0], k1, k2)]
        assert_close(torch.cat(alone), layer(x[0], lengths=[5])[0])


# mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.zeros(3, 1), 0), "k1 is a number of steps, 1 or more; found 0"),
        ((torch.zeros(3, 1), 2, 0), "k2 is a number of steps, 1 or more; found 0"),
        ((torch.zeros(3, 1), 2.0), "k1 is a number of steps, 1 or more; found 2.0"),
        ((3, 2), "found int"),
        (((), 2), r"found \(\)"),
        (([1.0], 2), "found float"),
        (((torch.zeros(3, 1), torch.zeros(2, 1)), 2), r"found \(\(3, 1\), \(2, 1\)\)"),
        (([torch.zeros(1, 1), (torch.zeros(1, 1),) * 2], 2), "one like the other"),
        ((torch.nn.utils.rnn.pack_sequence([torch.zeros(2, 1)]), 2), "found PackedSequence"),
    ],
)
def test_a_wrong_stream_gets_a_sentence(arguments, says):
    with pytest.raises(InputError, match=says):
        list(tbptt(*arguments))


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda w: w.run(GRU(X, H, bidirectional=True)), "reads a stream from its end too"),
        (lambda w: w.run(Recurrent(CLOCK, X, H)), "reads the number of the step, t, which starts"),
        (lambda w: w.run(torch.nn.GRU(X, H)), "runs the layers of unrolled.nn; found GRU"),
        (lambda w: w.run(GRU(X, H, batch_first=True)), "give both the same batch_first"),
        (lambda w: w.run(GRU(X, H), torch.zeros(5, B, X)), r"has 2 steps, along axis 0; found a t"),
        (lambda w: w.run(GRU(X, H), [1]), "found list"),
        (lambda w: w.run(GRU(X, H), lengths=[1]), "one for each of the 3 rows"),
        (lambda w: w.run(GRU(X, H), lengths=[1, -1, 2]), "from 0 to T = 2"),
        (lambda w: w.new(torch.zeros(3, 1)), "this window has 2 steps"),
        (lambda w: w.state(GRU(X, H)), "is not known; run each layer over every window"),
    ],
)
def test_wrong_use_of_a_window_gets_a_sentence(run, says):
    window = next(tbptt(torch.randn(6, B, X), 2))
    with pytest.raises(InputError, match=says):
        run(window)


def test_a_layer_that_left_a_window_out():
    layer, other = LSTM(X, H), LSTM(X, H)
    first, second, third = tbptt(torch.randn(6, B, X), 2)
    first.run(layer)
    with pytest.raises(InputError, match=r"before step 4 \(the first is 0\) is not known"):
        third.run(layer)
    with pytest.raises(InputError, match=r"before step 2 "):
        second.run(other)
    second.run(layer)
    third.run(layer)
    with pytest.raises(InputError, match=r"before step 2 "):
        second.run(layer)


def test_what_is_whole_is_handed_on_as_it_is():
    layer, chunks = layer_of(), [data(3, 2, X) for _ in range(3)]
    for number, window in enumerate(tbptt(iter(chunks), 3)):
        assert window.data is chunks[number]  # neither cut nor copied
        y = window.run(layer)
        assert window.new(y) is y
    for number, window in enumerate(tbptt(data(7, 2, X), 2, 3)):
        y = window.run(layer)
        torch.testing.assert_close(window.new(y), y[2 * number - window.start :])


def test_chunks_that_are_over_are_let_go():
    def chunks():
        for _ in range(4):
            chunk = data(2, 2, X)
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk

    alive = []
    for window in tbptt(chunks(), 2):
        there = [number for number, chunk in enumerate(alive) if chunk() is not None]
        assert there == [window.start // 2]
