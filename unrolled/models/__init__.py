"""Whole networks, built from recurrent layers."""

from .language_model import LanguageModel

__all__ = ["LanguageModel"]
