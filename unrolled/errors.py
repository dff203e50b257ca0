"""Everything that Unrolled raises on purpose.

UnrolledError
├── EquationError   the equations of a cell cannot be read
├── SizeError       two sizes of a cell cannot agree
├── InputError      an array, a state or an argument does not fit (also a ValueError)
├── BackendError    a backend cannot serve what was asked of it
└── GradientError   a gradient is not that of its function (also an AssertionError)

Their text is made for people: what is wrong, what was found, what to do instead.
"""


class UnrolledError(Exception):
    """Base of all errors that Unrolled raises on purpose."""


class EquationError(UnrolledError):
    """The equations of a cell cannot be read; the text points at the place."""


class SizeError(UnrolledError):
    """Two sizes of a cell cannot agree; the text points at the place."""


class InputError(UnrolledError, ValueError):
    """An array, a state, a parameter or an argument does not fit the cell."""


class BackendError(UnrolledError):
    """A backend cannot serve what was asked of it; the text says what would."""


class GradientError(UnrolledError, AssertionError):
    """A gradient is not that of its function; the text names the worst entry and what it tells."""
