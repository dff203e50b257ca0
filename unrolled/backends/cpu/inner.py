"""Functions that only compiled code calls, compiled for just that."""

from functools import partial

from numba import njit

# Numba would also write how Python calls such a function, and how C does: half of the time that a
# short one takes. Whoever calls it from Python all the same jumps to nowhere; its `py_func` can be
# called. No array owns its memory, so none is counted (`_nrt`): where states change places at each
# step, that took a tenth of a step of 32 units.
inner = partial(
    njit, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False
)
