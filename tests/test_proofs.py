"""What holds for every layer and every call: for random combinations of all that there is.

The quick run draws a few calls of each kind; the slow one many, and from kernels for cells that no
one thought of too.
"""

import io
from dataclasses import replace

import plain_kernels
import pytest
import torch
from drawn_layers import CATALOGUE, Call, calls, replace_layer, weighted_sum
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from unrolled.nn import Recurrent, tbptt
from unrolled.program import STEP_NUMBER

CHECKS = list(HealthCheck)  # calls are large to draw, and some are turned down
FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=CHECKS)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=CHECKS)


def assert_close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(list(found), list(expected), rtol=tolerance, atol=tolerance / 10)


# gradients


def difference(call: Call, directions, step):
    """The loss's change along a direction, by a central difference."""
    losses = []
    with torch.no_grad():
        for side in (step, -step):
            for leaf, direction in zip(call.leaves(), directions, strict=True):
                leaf += side * direction
            losses.append(weighted_sum(call.run()))
            for leaf, direction in zip(call.leaves(), directions, strict=True):
                leaf -= side * direction
    return (losses[0] - losses[1]) / (2 * step)


def assert_gradients_are_differences(call: Call):
    directions = [torch.randn_like(leaf) for leaf in call.leaves()]
    gradients = call.gradients()
    found = sum(
        (gradient * direction).sum()
        for gradient, direction in zip(gradients, directions, strict=True)
    )
    # Between two points may lie a kink, of a relu or a clipped state: hardly at both distances.
    wrong = [
        float(abs(found - difference(call, directions, step)) / (1 + abs(found)))
        for step in (1e-5, 1e-6)
    ]
    assert min(wrong) < 1e-6, wrong


@FEW
@given(calls())
def test_gradients_are_central_differences(call):
    assert_gradients_are_differences(call)


@pytest.mark.slow
@MANY
@given(calls())
def test_many_gradients_are_central_differences(call):
    assert_gradients_are_differences(call)


def assert_some_gradients_are_those_of_all(call: Call, data):
    wanted = dict(enumerate(call.gradients()))
    leaves = call.leaves()
    some = data.draw(st.sets(st.sampled_from(range(len(leaves))), min_size=1), label="wanted")
    for place, leaf in enumerate(leaves):
        leaf.requires_grad_(place in some)
    chosen, total = [leaves[place] for place in some], weighted_sum(call.run())
    found = (
        torch.autograd.grad(total, chosen, allow_unused=True, materialize_grads=True)
        if total.requires_grad
        else [torch.zeros_like(leaf) for leaf in chosen]  # such as what is learned and not used
    )
    assert_close(found, [wanted[place] for place in some])


# By kernels, which leave out what is not wanted; in the quick run those of other tests.
few_kernels = {"transforms": False, "backends": ("cpu",), "return_all": True, "recompute": False}


@FEW
@given(calls(st.sampled_from(CATALOGUE), **few_kernels), st.data())
def test_some_gradients_are_those_of_all(call, data):
    assert_some_gradients_are_those_of_all(call, data)


@pytest.mark.slow
@MANY
@given(calls(backends=("cpu",)), st.data())
def test_many_gradients_of_some_leaves(call, data):
    with plain_kernels.everywhere():
        assert_some_gradients_are_those_of_all(call, data)


# the batch


def axes_of_rows(call: Call):
    """Where the rows of the batch stand in outputs, last states and all states."""
    states = len(call.layer.cell.states)
    return [1] * (1 + states) + [2] * (states * call.return_all)


def assert_rows_are_as_alone(call: Call):
    T, states = len(call.x), len(call.layer.cell.states)
    with torch.no_grad():  # what is beyond a row's length is never read
        for row, length in enumerate(call.lengths):
            call.x[length:, row] = float("nan")
    found, alone = call.run(), []
    for row, length in enumerate(call.lengths):
        one = call.rows([row]).steps(slice(length))
        y, *rest = one.run()
        pad = (0, 0, 0, 0, 0, T - length)
        every = [torch.nn.functional.pad(part, pad) for part in rest[states:]]
        alone.append([torch.nn.functional.pad(y, pad), *rest[:states], *every])
    expected = [
        torch.cat(parts, axis)
        for axis, parts in zip(axes_of_rows(call), zip(*alone, strict=True), strict=True)
    ]
    assert_close(found, expected)
    assert_close(call.gradients(found), call.gradients(expected))


@FEW
@given(calls(ragged=True))
def test_a_padded_batch_is_each_row_alone(call):
    assert_rows_are_as_alone(call)


@pytest.mark.slow
@MANY
@given(calls(ragged=True))
def test_many_padded_batches_are_each_row_alone(call):
    assert_rows_are_as_alone(call)


def assert_permuted(call: Call, data):
    order = data.draw(st.permutations(range(call.x.shape[1])))
    found = call.rows(order).run()
    moved = [
        output.index_select(axis, torch.tensor(order))
        for axis, output in zip(axes_of_rows(call), call.run(), strict=True)
    ]
    assert_close(found, moved)
    # Both read the very same leaves, so their gradients stand in one order.
    assert_close(call.gradients(found), call.gradients(moved))


@FEW
@given(calls(), st.data())
def test_permuting_the_batch_permutes_the_result(call, data):
    assert_permuted(call, data)


@pytest.mark.slow
@MANY
@given(calls(), st.data())
def test_many_permutations(call, data):
    assert_permuted(call, data)


# time


def reads_the_step_number(layer: Recurrent):
    return any(STEP_NUMBER in one.operands for one in layer.cell.program.instructions)


def windows_of_one_step(call: Call):
    """Outputs and last states; the state goes from call to call."""
    state, outputs = call.state, []
    for t in range(len(call.x)):
        step = replace(call.steps(slice(t, t + 1)), state=state, return_all=False)
        if call.lengths is not None:
            step.lengths = [int(t < length) for length in call.lengths]
        y, *state = step.run()
        outputs.append(y)
        state = tuple(state)
    return [torch.cat(outputs), *state]


def steps(call: Call):
    """The same by `layer.step`, which has neither lengths nor resets nor masks."""
    state, outputs = call.state, []
    if state is not None and len(state) == 1:
        (state,) = state
    for x_t in call.x:
        y, state = call.layer.step(x_t, state)
        outputs.append(y)
    return [torch.stack(outputs), *(state if isinstance(state, tuple) else (state,))]


def windows_of_tbptt(call: Call):
    """The same by windows of truncated BPTT that overlap."""
    outputs = []
    states = {}
    if call.state is not None:
        states[call.layer] = call.state if len(call.state) > 1 else call.state[0]
    for window in tbptt(call.x, 2, 3, states=states):
        outputs.append(window.new(window.run(call.layer, lengths=call.lengths)))
    state = window.state(call.layer)
    return [torch.cat(outputs), *(state if isinstance(state, tuple) else (state,))]


PLAIN = {"training": False, "ragged": False, "reset": False, "batch_first": False}
STREAMS = {
    "windows of one step": (windows_of_one_step, {}),
    "tbptt": (windows_of_tbptt, {"training": False, "reset": False, "batch_first": False}),
    "steps": (steps, PLAIN),
}
streams = pytest.mark.parametrize(
    "stream",
    [
        pytest.param(
            name,
            marks=[pytest.mark.skipif(not hasattr(Recurrent, "step"), reason="no step yet")]
            if name == "steps"
            else [],
        )
        for name in STREAMS
    ],
)


def assert_streamed_is_whole(stream, data):
    run, options = STREAMS[stream]
    options = {"bidirectional": False, "return_all": False, **options}
    call = data.draw(calls(**options))
    assume(not reads_the_step_number(call.layer))
    found, expected = run(call), call.run()
    assert_close(found, expected)
    if stream == "windows of one step":  # nothing is cut off between them
        assert_close(call.gradients(found), call.gradients(expected))


@streams
@FEW
@given(data=st.data())
def test_streamed_is_whole(stream, data):
    assert_streamed_is_whole(stream, data)


@pytest.mark.slow
@streams
@MANY
@given(data=st.data())
def test_many_streams_are_whole(stream, data):
    assert_streamed_is_whole(stream, data)


def flipped(call: Call, tensor, resets=False):
    """Each row's own steps from its end; a reset stands between the same two steps."""
    found = torch.zeros_like(tensor)
    for row in range(call.x.shape[1]):
        length = len(call.x) if call.lengths is None else call.lengths[row]
        if resets:
            found[1:length, row] = tensor[1:length, row].flip(0)
        else:
            found[:length, row] = tensor[:length, row].flip(0)
    return found


def assert_reversed_is_reverse(call: Call):
    layer = call.layer
    onwards = replace_layer(layer, bidirectional=False)
    for name, parameter in onwards.named_parameters():
        parameter.data.copy_(dict(layer.named_parameters())[f"{name}_reverse"])
    masks = call.with_masks(lambda mask, every: flipped(call, mask) if every else mask)
    turned = Call(
        onwards,
        flipped(call, call.x.detach()).requires_grad_(),
        None if call.state is None else tuple(part[1:].detach() for part in call.state),
        call.lengths,
        None if call.resets is None else flipped(call, call.resets, resets=True),
        None if masks is None else masks[1:],
        call.return_all,
    )
    y, *rest = call.run()
    half = y.shape[-1] // 2
    count = len(layer.cell.states)
    found_y, *found = turned.run()
    assert_close([flipped(call, found_y)], [y[..., half:]])
    assert_close(found[:count], [part[1:] for part in rest[:count]])
    assert_close(
        [flipped(call, part[0]) for part in found[count:]], [part[1] for part in rest[count:]]
    )


one_layer_both_ways = calls(bidirectional=True, num_layers=1)


@FEW
@given(one_layer_both_ways)
def test_reversed_input_through_the_forward_layer_is_the_reverse_direction(call):
    assert_reversed_is_reverse(call)


@pytest.mark.slow
@MANY
@given(one_layer_both_ways)
def test_much_reversed_input_is_the_reverse_direction(call):
    assert_reversed_is_reverse(call)


# backends


def assert_backends_agree(call: Call):
    reference = call.on(backend="reference")
    for backend in ("cpu", "eager"):
        other = call.on(backend=backend)
        found, expected = other.run(), reference.run()
        assert_close(found, expected)
        assert_close(other.gradients(found), reference.gradients(expected))


# These kernels are made by other tests too. In the slow run any cell gets its own.
known = calls(st.sampled_from(CATALOGUE), transforms=False, return_all=True, recompute=False)


@FEW
@given(known)
def test_kernels_are_the_reference(call):
    assert_backends_agree(call)


@pytest.mark.slow
@settings(MANY, max_examples=8)
@given(calls())
def test_many_kernels_are_the_reference(call):
    assert_backends_agree(call)


def assert_recomputed_is_kept(call: Call):
    again, kept = call.on(recompute=True), call.on(recompute=False)
    found, expected = again.run(), kept.run()
    assert_close(found, expected)
    assert_close(again.gradients(found), kept.gradients(expected))


@FEW
@given(calls())
def test_recomputed_is_kept(call):
    assert_recomputed_is_kept(call)


@pytest.mark.slow
@MANY
@given(calls())
def test_much_recomputed_is_kept(call):
    assert_recomputed_is_kept(call)


# export


@pytest.mark.slow
@settings(MANY, max_examples=15)
@given(calls(training=False))
def test_what_is_exported_is_ours(call):
    layer, turn = call.layer, call.layer.batch_first
    given = {
        "x": call.x.detach().transpose(0, 1) if turn else call.x.detach(),
        "state": None,
        "lengths": None if call.lengths is None else torch.tensor(call.lengths),
        "resets": call.resets.t() if turn and call.resets is not None else call.resets,
    }
    if call.state is not None:
        state = tuple(part.detach() for part in call.state)
        given["state"] = state if len(state) > 1 else state[0]
    given = {name: value for name, value in given.items() if value is not None}
    with torch.no_grad():
        program = torch.export.export(
            layer, (), {**given, "return_all": call.return_all}, strict=False
        )
        written = io.BytesIO()
        torch.export.save(program, written)
        written.seek(0)
        loaded = torch.export.load(written).module()
        for scale in (1.0, -0.5):  # other numbers than were seen
            given["x"] = given["x"] * scale
            torch.testing.assert_close(
                loaded(**given, return_all=call.return_all),
                layer(**given, return_all=call.return_all),
                rtol=1e-9, atol=1e-10,
            )  # fmt: skip
