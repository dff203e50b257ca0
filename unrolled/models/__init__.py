"""Whole networks, built from recurrent layers."""

from unrolled.models.language_model import LanguageModel

__all__ = ["LanguageModel"]
