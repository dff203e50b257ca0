"""`check`: is a learner's function right, and if not, which mistake was made?"""

from .check import check
from .report import Report

__all__ = ["Report", "check"]
