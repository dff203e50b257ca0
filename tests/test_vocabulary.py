import json

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from unrolled.data.batches import parallel_streams
from unrolled.data.text import TextError
from unrolled.data.vocabulary import (
    ByteVocabulary,
    CharacterVocabulary,
    Vocabulary,
    WordVocabulary,
    build_vocabulary,
    split_words,
    vocabulary_from_config,
)

TEXT = "The cat, the dog; the cat's  nap.\n\nÉté: the cat and the dog (the 1st nap)."


@pytest.mark.parametrize("level", ["character", "byte"])
@given(text=st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_characters_and_bytes_give_every_text_back(level: str, text: str) -> None:
    vocabulary = build_vocabulary(level, text + "ab", text)
    tokens = vocabulary.encode(text)
    assert tokens.dtype == np.int64
    assert tokens.min() >= 0
    assert tokens.max() < vocabulary.size
    assert vocabulary.decode(tokens) == text


@given(st.text(st.sampled_from("ab'’ \n.,_é1\t"), min_size=1) | st.text(min_size=1))
def test_known_words_give_every_text_back(text: str) -> None:
    vocabulary = WordVocabulary(("<unk>", *dict.fromkeys(split_words(text))))
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.unencoded_bits(text) == 0


def test_words_are_split_at_marks_and_one_space_between_words_is_understood() -> None:
    assert split_words("I don't  know: a_b c.\n") == (
        ["I", "don't", " ", " ", "know", ":", " ", "a_b", "c", ".", "\n"]
    )


def test_rare_words_are_unknown() -> None:
    vocabulary = build_vocabulary("word", TEXT, "the bird")
    assert vocabulary.unknown == 0
    assert {"the", "cat", "dog", "nap", "."} < set(vocabulary.symbols)
    assert "bird" not in vocabulary.symbols
    assert "Été" not in vocabulary.symbols
    assert vocabulary.decode(vocabulary.encode("the bird. the dog")) == "the <unk>. the dog"


def test_unknown_words_are_charged_for_their_letters() -> None:
    vocabulary = build_vocabulary("word", TEXT)
    text = "the bird"  # 7 different characters and the word's end
    assert vocabulary.unencoded_bits(text) == 5 * np.log2(9)
    assert len(set(text)) == 8


def test_no_more_than_ten_thousand_words() -> None:
    words = [f"w{number}" for number in range(12_000)]
    vocabulary = build_vocabulary("word", " ".join(words + words + words[-1:]))
    assert vocabulary.size == 10_001
    assert vocabulary.symbols[:3] == ("<unk>", "w11999", "w0")


def test_characters_come_from_the_held_out_part_too() -> None:
    assert build_vocabulary("character", "abc", "xyz").symbols == "abcxyz"


def test_unknown_characters_are_named() -> None:
    vocabulary = build_vocabulary("character", "hello world")
    with pytest.raises(TextError) as caught:
        vocabulary.encode("hello wörld! ☃")
    message = str(caught.value)
    for name in ("'!' (U+0021)", "'ö' (U+00F6)", "'☃' (U+2603)"):
        assert name in message
    assert "'h' (" not in message
    assert "' dehlorw'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("level", "text"), [("character", "aaaa"), ("byte", "aaaa"), ("word", "a a a a")]
)
def test_a_vocabulary_of_one_is_an_error(level: str, text: str) -> None:
    with pytest.raises(TextError, match=f"vocabulary of one {level}"):
        build_vocabulary(level, text, text)


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(TextError, match="no level 'letter'; choose character, byte or word"):
        build_vocabulary("letter", TEXT)


@pytest.mark.parametrize("level", ["character", "byte", "word"])
def test_a_vocabulary_survives_its_configuration(level: str) -> None:
    vocabulary = build_vocabulary(level, TEXT)
    config = json.loads(json.dumps(vocabulary.to_config()))
    assert vocabulary_from_config(config) == vocabulary


def test_a_foreign_description_is_an_error() -> None:
    with pytest.raises(TextError, match="cannot be read"):
        vocabulary_from_config({"level": "character", "symbols": 3})


def test_bytes_are_shown_as_soon_as_a_character_is_whole() -> None:
    e_acute, cut_off = [0xC3, 0xA9], [0xE2, 0x82]
    pieces = ByteVocabulary().stream([0x61, *e_acute, 0x62, *cut_off])
    assert list(pieces) == ["a", "é", "b", "\ufffd"]


def test_words_are_shown_one_by_one() -> None:
    vocabulary: Vocabulary = WordVocabulary(("<unk>", "a", "b", "."))
    assert list(vocabulary.stream([1, 2, 0, 3])) == ["a", " b", " <unk>", "."]


def test_streams_go_through_the_text_side_by_side() -> None:
    streams = parallel_streams(np.arange(24), 3)
    assert streams.inputs.tolist() == [[t, 7 + t, 14 + t] for t in range(7)]
    assert torch.equal(streams.targets, streams.inputs + 1)
    assert streams.windows(3) == 3
    inputs, targets = streams.window(6, 3)
    assert inputs.tolist() == [[6, 13, 20]]
    assert targets.tolist() == [[7, 14, 21]]


def test_windows_cover_each_stream_once() -> None:
    streams = parallel_streams(np.arange(24), 3)
    windows = [streams.window(start, 3)[0] for start in range(0, streams.length, 3)]
    assert len(windows) == streams.windows(3)
    assert torch.equal(torch.cat(windows), streams.inputs)


def test_a_text_too_short_for_the_batch_is_an_error() -> None:
    with pytest.raises(TextError, match="has 4 tokens, and a batch of 4 streams needs at least 5"):
        parallel_streams(np.arange(4), 4)


def test_symbols_are_sorted_by_code_point() -> None:
    assert CharacterVocabulary("\nAaé").encode("éaA\n").tolist() == [3, 2, 1, 0]
