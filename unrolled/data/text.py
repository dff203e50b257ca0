"""Text to train on: files, or the real text that every Python installation carries.

The held-out part is the end of the text: it is never trained on, and follows the training part
as it would in reading, so a model may arrive at it with its state carried over.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import UnrolledError

HELD_OUT_FRACTION = 0.1


class TextError(UnrolledError):
    """A text cannot be read, is too short, or does not fit a vocabulary."""


def read_texts(paths: Sequence[Path]) -> str:
    """The contents of UTF-8 text files, one after the other in the order given.

    Line ends are read as newlines and a byte-order mark at a file's start is dropped.

    Args:
        paths: The files; at least one.

    Raises:
        TextError: A file is missing, is no file, cannot be read, is empty or is not UTF-8.
    """
    return "".join(_read_text(Path(path)) for path in paths)


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TextError(f"There is no file {path}; check its name.") from None
    except IsADirectoryError:
        raise TextError(f"{path} is a folder; name the text files inside it.") from None
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8 text (byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}); convert it first, for example with "
            f"`iconv -f LATIN1 -t UTF-8 {path}`."
        ) from None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not text.strip():
        raise TextError(f"{path} is empty; there is nothing to learn from.")
    return text


def builtin_text() -> str:
    """Python's language reference, as it ships in `pydoc_data.topics`, without repetitions.

    Its topics are joined in alphabetical order. Many of them repeat paragraphs of others, which
    would let a model meet its held-out text in training, so repeated paragraphs are dropped.
    Some 373,000 characters under Python 3.11; other versions differ a little.

    Raises:
        TextError: This Python was installed without its `pydoc_data` package.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError(
            "This Python lacks the language reference (pydoc_data); name a text file instead."
        ) from None
    return drop_repeated_paragraphs("\n\n".join(topics[name] for name in sorted(topics)))


def drop_repeated_paragraphs(text: str) -> str:
    """The text with each paragraph at its first place only; an empty line ends a paragraph."""
    paragraphs = (part.strip("\n") for part in text.split("\n\n"))
    return "\n\n".join(dict.fromkeys(part for part in paragraphs if part.strip()))


def split_held_out(text: str, fraction: float = HELD_OUT_FRACTION) -> tuple[str, str]:
    """The text in two: the part to train on, and the end of the text, held out.

    Args:
        text: The whole text.
        fraction: The held-out part's share of the characters, rounded down.

    Raises:
        TextError: The text is so short that one of the parts would be empty.
    """
    held_out = int(len(text) * fraction)
    if held_out < 1 or held_out >= len(text):
        raise TextError(
            f"The text has only {len(text)} characters, too few to hold a tenth of it out; "
            "give a longer text."
        )
    return text[:-held_out], text[-held_out:]


def fingerprint(text: str) -> str:
    """A short digest that tells one text from another (the start of its SHA-256)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
