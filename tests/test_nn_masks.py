"""Masks as tensors: who draws them, from which seed, and how they are laid side by side."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import unrolled
from unrolled import cells
from unrolled.nn import Recurrent, masks as drawing

T, B, X, H = 6, 3, 4, 5
CELL = unrolled.zoneout(
    unrolled.candidate_dropout(unrolled.recurrent_dropout(cells.lstm, 0.4), 0.3), 0.2
)


def layer_of(cell=CELL, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return Recurrent(cell, X, H, dtype=dtype, **options)


def seeded(work, seed=1):
    torch.manual_seed(seed)
    return work()


@pytest.fixture
def no_draws_of_torch(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("torch drew a mask")

    monkeypatch.setattr(torch, "rand", refuse)


@pytest.mark.usefixtures("no_draws_of_torch")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", [CELL, unrolled.recurrent_dropout(cells.gru, 0.4)])
def test_noise_is_the_masks_side_by_side(cell, dtype):
    (direction,) = layer_of(cell)._random
    x = torch.zeros(T, B, X, dtype=dtype)
    packed, counts = x[:4].flatten(0, 1)[:10], torch.tensor([3, 3, 3, 1])
    for given, of_steps in ((x, None), (packed, counts)):
        noise = seeded(lambda: drawing.draw_noise(direction, given, of_steps))  # noqa: B023
        masks = seeded(lambda: drawing.draw_masks(direction, given, given.shape[:-1], B))  # noqa: B023
        assert noise.dtype == dtype
        assert noise.is_contiguous()
        expected = drawing.noise_of(direction, masks, given, of_steps)
        torch.testing.assert_close(noise, expected, rtol=0, atol=0)
        assert 0 < (noise == 0).double().mean() < 1


@pytest.mark.usefixtures("no_draws_of_torch")
def test_masks_follow_the_seed_and_no_number_of_threads():
    layer = layer_of(num_layers=2, dropout=0.3, weight_dropout=0.3)
    x, threads = torch.ones(T, B, X, dtype=torch.float64), torch.get_num_threads()
    found = seeded(lambda: layer(x)[0])
    torch.testing.assert_close(seeded(lambda: layer(x)[0]), found, rtol=0, atol=0)
    assert not torch.equal(layer(x)[0], found)
    assert not torch.equal(seeded(lambda: layer(x)[0], seed=2), found)
    try:
        torch.set_num_threads(threads + 1)
        torch.testing.assert_close(seeded(lambda: layer(x)[0]), found)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("no_draws_of_torch")
def test_masks_of_one_call_differ():
    one, two = layer_of(bidirectional=True).draw_masks(40, 40)
    sizes = {name: mask for name, mask in one.items() if mask.dim() == 3}
    assert len(sizes) == 3
    found = [mask.ne(0).double() for mask in (*sizes.values(), two["keep_h"], two["m_g"])]
    for place, mask in enumerate(found):
        for other in found[:place]:
            together = (mask - mask.mean()) * (other - other.mean())
            assert together.mean().abs() < 4 * (mask.std() * other.std()) / mask.numel() ** 0.5


@pytest.mark.usefixtures("no_draws_of_torch")
@pytest.mark.parametrize("every", ["step", "sequence"])
def test_what_is_dropped_between_layers(every):
    x = torch.zeros(50, 40, X)
    mask = seeded(lambda: drawing.mask_drawn_between(x, 30, 0.25, every, None))
    assert mask.shape == (50, 40, 30)
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.75]))
    once = mask[0]
    assert torch.equal(mask, once.expand_as(mask)) == (every == "sequence")
    assert abs((once == 0).double().mean() - 0.25) < 0.05


def test_torch_draws_what_must_be_seen():
    (direction,) = layer_of()._random
    x = torch.zeros(T, B, X, dtype=torch.float64)

    def draw():
        return drawing.draw_noise(direction, x, None)

    quick = seeded(draw)
    compiled = torch.compile(draw, fullgraph=True, backend="eager")
    for found in (seeded(compiled), seeded(lambda: torch.func.vmap(
        lambda _: draw(), randomness="same")(torch.zeros(1))).reshape(quick.shape)):  # fmt: skip
        assert found.shape == quick.shape
        assert found.dtype == quick.dtype
        assert not torch.equal(found, quick)
    assert drawing.draw_noise(direction, x.bfloat16(), None).dtype == torch.bfloat16
    assert drawing.draw_noise(direction, x.to("meta"), None).is_meta


def test_another_default_device_is_no_matter():
    (direction,) = layer_of()._random
    x = torch.zeros(T, B, X, dtype=torch.float64)
    noise = seeded(lambda: drawing.draw_noise(direction, x, None))
    with torch.device("meta"):
        assert torch.empty(1).is_meta
    try:
        torch.set_default_device("meta")
        assert drawing.draw_noise(direction, x, None).shape == noise.shape
    finally:
        torch.set_default_device(None)


def test_packed_sequences_of_no_steps_draw_nothing():
    layer = layer_of()
    packed = pack_padded_sequence(torch.ones(1, 1, X, dtype=torch.float64), [1])
    assert layer(packed)[0].data.shape == (1, H)
    assert layer(torch.ones(0, B, X, dtype=torch.float64))[0].shape == (0, B, H)
