"""The notebook: a marimo app whose chapters follow a course's notes. `unrolled lab` opens it."""

from pathlib import Path

PATH = Path(__file__).parent / "app.py"
