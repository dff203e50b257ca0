import pytest
import torch
from hypothesis import given, strategies as st

from unrolled import cells
from unrolled.decode.sampling import next_token_probabilities, sample
from unrolled.errors import InputError
from unrolled.models.language_model import LanguageModel, detach

LOGITS = torch.tensor([0.5, 2.0, -1.0, 1.5, 0.0])


def _model(cell: str = "lstm", **more: object) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(11, 6, 8, num_layers=2, cell=getattr(cells, cell), **more)  # type: ignore[arg-type]
    with torch.no_grad():  # far from uniform, so that choices differ
        model.output.weight.mul_(20)
    return model.eval()


def test_plain_probabilities_are_the_softmax() -> None:
    expected = torch.softmax(LOGITS.double(), 0)
    torch.testing.assert_close(next_token_probabilities(LOGITS), expected)


def test_temperature_divides_the_logits() -> None:
    expected = torch.softmax(LOGITS.double() / 0.3, 0)
    torch.testing.assert_close(next_token_probabilities(LOGITS, temperature=0.3), expected)


def test_temperature_zero_is_greedy() -> None:
    assert next_token_probabilities(LOGITS, temperature=0).tolist() == [0, 1, 0, 0, 0]


def test_a_tiny_temperature_is_finite_and_greedy() -> None:
    probabilities = next_token_probabilities(LOGITS * 1e4, temperature=1e-8)
    assert probabilities.tolist() == [0, 1, 0, 0, 0]


def test_top_k_keeps_the_k_likeliest() -> None:
    probabilities = next_token_probabilities(LOGITS, top_k=2)
    assert probabilities.nonzero().flatten().tolist() == [1, 3]
    torch.testing.assert_close(probabilities[[1, 3]], torch.softmax(LOGITS[[1, 3]].double(), 0))


def test_top_k_keeps_exactly_k_of_equals() -> None:
    assert int((next_token_probabilities(torch.zeros(5), top_k=3) > 0).sum()) == 3


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    torch.testing.assert_close(
        next_token_probabilities(LOGITS, top_k=99), next_token_probabilities(LOGITS)
    )


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=12),
    st.floats(0.01, 1.0),
)
def test_top_p_keeps_the_smallest_likeliest_set(values: list[float], p: float) -> None:
    logits = torch.tensor(values, dtype=torch.float64)
    full = torch.softmax(logits, 0)
    kept = next_token_probabilities(logits, top_p=p)
    chosen = full[kept > 0]
    assert abs(float(kept.sum()) - 1) < 1e-9
    assert float(chosen.sum()) >= p - 1e-9
    assert float(chosen.sum() - chosen.min()) < p
    if (kept == 0).any():
        assert chosen.min() >= full[kept == 0].max() - 1e-12


def test_top_p_acts_on_what_top_k_has_left() -> None:
    logits = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    # Of 4/7 and 3/7, the first alone reaches a half; of all four, it would not.
    kept = next_token_probabilities(logits, top_k=2, top_p=0.5)
    assert kept.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top-k"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.1}, "top-p"),
    ],
)
def test_settings_outside_their_range_are_errors(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        next_token_probabilities(LOGITS, **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        sample(_model(), [1], 5, **settings)  # type: ignore[arg-type]


def test_an_empty_prompt_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one token"):
        sample(_model(), [], 5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_carried_state_equals_reading_everything_again(cell: str) -> None:
    model = _model(cell)
    tokens = [3, 1, 4]
    for drawn in sample(model, [3, 1, 4], 12, temperature=0):
        with torch.no_grad():
            logits, _ = model(torch.tensor(tokens)[:, None])
        assert drawn == int(logits[-1, 0].argmax())
        tokens.append(drawn)
    assert len(tokens) == 15


def test_a_seed_gives_the_same_text_and_another_seed_another() -> None:
    def drawn(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return list(sample(_model(), [1], 40, temperature=5.0, generator=generator))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_generator_of_its_own_leaves_the_global_one_alone() -> None:
    model = _model()
    before = torch.get_rng_state()
    list(sample(model, [1], 5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_excluded_tokens_are_never_drawn() -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = set(sample(_model(), [1], 300, temperature=30.0, generator=generator, exclude=[0, 5]))
    assert drawn == set(range(11)) - {0, 5}


def test_sampling_leaves_the_model_in_its_mode() -> None:
    model = _model(dropout=0.5).train()
    first = list(sample(model, [1], 10, temperature=0))
    assert model.training
    assert first == list(sample(model.eval(), [1], 10, temperature=0))


def test_tokens_come_one_at_a_time() -> None:
    drawn = sample(_model(), [1], 10**12, temperature=0)
    assert [next(drawn), next(drawn)] == list(sample(_model(), [1], 2, temperature=0))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["simple", "gru", "lstm"])
def test_chunks_with_a_carried_state_equal_the_whole(cell: str, tied: bool) -> None:
    model = _model(cell, tied=tied)
    tokens = torch.randint(0, 11, (9, 3), generator=torch.Generator().manual_seed(1))
    whole, state = model(tokens)
    first, middle = model(tokens[:4])
    second, end = model(tokens[4:], detach(middle))
    assert whole.shape == (9, 3, 11)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(end, state, rtol=1e-5, atol=1e-5)


def test_tied_weights_are_one_parameter() -> None:
    model = LanguageModel(11, 8, 8, tied=True)
    assert model.output.weight is model.embedding.weight
    smaller = LanguageModel(11, 4, 8, tied=True)
    assert smaller.output.weight is smaller.embedding.weight
    assert smaller(torch.zeros(2, 1, dtype=torch.int64))[0].shape == (2, 1, 11)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"num_layers": -1}, "num_layers must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_impossible_models_are_errors(settings: dict[str, int], message: str) -> None:
    sizes = {"vocabulary_size": 11, "embedding_size": 4, "hidden_size": 8} | settings
    with pytest.raises(InputError, match=message):
        LanguageModel(**sizes)  # type: ignore[arg-type]
