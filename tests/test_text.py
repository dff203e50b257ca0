from pathlib import Path

import pytest

from unrolled.data.text import (
    TextError,
    builtin_text,
    drop_repeated_paragraphs,
    fingerprint,
    read_texts,
    split_held_out,
)


def test_files_are_read_one_after_the_other_in_the_order_given(tmp_path: Path) -> None:
    first, second = tmp_path / "b.txt", tmp_path / "a.txt"
    first.write_bytes("\ufeffDéjà\r\nvu\n".encode())
    second.write_bytes(b"again\n")
    assert read_texts([first, second]) == "Déjà\nvu\nagain\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"caf\xe9 au lait", r"is not UTF-8 text \(byte 0xe9 at position 3\)"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("fine")
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        read_texts([good, bad])
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_text(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="is a folder"):
        read_texts([tmp_path])


def test_repeated_paragraphs_stay_at_their_first_place_only() -> None:
    text = "one\nline\n\n\ntwo\n\none\nline\n\nthree\n\n   \n\ntwo"
    assert drop_repeated_paragraphs(text) == "one\nline\n\ntwo\n\nthree"


def test_builtin_text_repeats_no_paragraph_and_is_the_same_each_time() -> None:
    text = builtin_text()
    paragraphs = text.split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) > 1000
    assert len(text) > 300_000
    assert fingerprint(text) == fingerprint(builtin_text())


def test_the_held_out_tenth_is_the_end_of_the_text() -> None:
    text = "".join(chr(200 + number) for number in range(107))
    training, held_out = split_held_out(text)
    assert training + held_out == text
    assert len(held_out) == 10


def test_a_text_too_short_to_split_is_an_error() -> None:
    with pytest.raises(TextError, match="only 9 characters"):
        split_held_out("too short")


def test_fingerprints_tell_texts_apart() -> None:
    assert fingerprint("a") != fingerprint("b")
