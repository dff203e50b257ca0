"""The functions of the language for compiled code, on vectors and on numbers.

Each is a few formulas on a `Value`. An exponential is `e^x = 2^n e^r` with n whole and
`|r| <= ln 2 / 2` (Cody & Waite 1980) and Taylor's series for `e^r`; a logarithm is the series of
the inverse hyperbolic tangent. The errors stated are the largest found against extended precision,
in units in the last place (ulp) of the exact result; they hold for vectors of every width, and with
or without fused multiply-add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .emission import Value
from .vectors import elementwise, only_compiled

# ln 2 to 40 digits: 30 bits more than a double holds, for the second part of its split.
_LN2 = Fraction(6931471805599453094172321214581765680755, 10**40)


@dataclass(frozen=True)
class _Format:
    """What a floating-point format asks of the formulas.

    Attributes:
        digits: bits of the significand after the point.
        bias: what is added to an exponent before it is stored.
        exponential: how many terms of the series of the exponential it takes.
        logarithm: how many terms of the series of the logarithm it takes.
        ln2: ln 2 in two parts; the first has so few bits that n times it is exact.
        lowest: below it the exponential is 0.
        highest: above it the exponential is infinite.
    """

    digits: int
    bias: int
    exponential: int
    logarithm: int
    ln2: tuple[float, float]
    lowest: float
    highest: float

    @property
    def edge(self) -> float:
        """So far below 0 the exponential is below the normal numbers, and 2^n is taken as 0."""
        return self.bias * math.log(2)

    @property
    def magic(self) -> float:
        """A number so large that adding it rounds to a whole number."""
        return 1.5 * 2.0**self.digits


def _split_ln2(bits: int) -> tuple[float, float]:
    high = Fraction(int(_LN2 * 2**bits), 2**bits)
    return float(high), float(_LN2 - high)


_FORMATS = {
    32: _Format(23, 127, 6, 5, _split_ln2(15), -104.0, 89.0),
    64: _Format(52, 1023, 12, 10, _split_ln2(41), -746.0, 710.0),
}


def _format(x: Value) -> _Format:
    return _FORMATS[x.width]


def _series(x: Value, square: Value, coefficients: list[float]) -> Value:
    """The polynomial with these coefficients, the constant one first, given x and x².

    Pairs of terms know nothing of each other (Estrin 1960), so it waits half as long as by Horner's
    rule, and multiplies as often.
    """
    even, odd = coefficients[::2], coefficients[1::2]
    pairs = [x.times_plus(*pair) for pair in zip(odd, even, strict=False)]
    total = pairs.pop() if len(even) == len(odd) else x.constant(even[-1])
    for pair in reversed(pairs):
        total = total.times_plus(square, pair)
    return total


def _reduced(x: Value, factor: float = 1.0) -> tuple[Value, Value]:
    """(n + magic, e^r - 1) with `factor * x = n ln 2 + r`.

    The low bits of the first are those of n. The factor is a power of two, or minus one.
    """
    form = _format(x)
    shifted = x.times_plus(factor / math.log(2), form.magic)
    n = shifted - form.magic
    r = n.times_plus(-form.ln2[1], n.times_plus(-form.ln2[0], x * factor))
    square = r * r
    tail = _series(r, square, [1 / math.factorial(k + 2) for k in range(form.exponential)])
    return shifted, square.times_plus(tail, r)


def _power_of_two(shifted: Value, plus: int = 0) -> Value:
    """2^(n + plus), for n + plus in -bias … bias; the lower end gives 0."""
    form = _format(shifted)
    return ((shifted.bits() + (form.bias + plus)) << form.digits).read_as(shifted)


def _exp(x: Value) -> Value:
    form = _format(x)
    shifted, rest = _reduced(x.at_least(form.lowest).at_most(form.highest))
    # 2^n in two factors: n reaches beyond the exponents of the format at both ends.
    even = 2 * form.bias + 2
    n = (shifted.bits() - shifted.constant(form.magic).bits()) + even
    half = n >> 1
    first = ((half + (form.bias - even // 2)) << form.digits).read_as(x)
    second = (((n - half) + (form.bias - even // 2)) << form.digits).read_as(x)
    return rest.times_plus(first, first) * second


def _sigmoid(x: Value) -> Value:
    """`1 / (1 + e^-x)`."""
    form = _format(x)
    # e^-digits is too little to change 1, and e^edge is beyond what 1 can be divided by.
    shifted, rest = _reduced(x.at_least(-form.edge).at_most(form.digits), -1.0)
    scale = _power_of_two(shifted)
    result = 1.0 / rest.times_plus(scale, scale + 1.0)
    return x.compare("<", math.log(2) - form.edge).choose(0.0, result)


def _tanh(x: Value) -> Value:
    """With `m = e^(-2|x|) - 1`: `tanh |x| = -m / (2 + m)`, exact near 0 because m is."""
    form = _format(x)
    shifted, rest = _reduced(x.call("fabs").at_most(form.edge / 2), -2.0)
    scale = _power_of_two(shifted)
    m, m_and_two = (rest.times_plus(scale, scale + term) for term in (-1.0, 1.0))
    return (m / m_and_two).call("copysign", x)


def _log_near_one(f: Value) -> tuple[Value, Value]:
    """(f, c) with `log(1 + f) = f - c`, for 1 + f within a factor sqrt 2 of 1.

    With s = f / (2 + f) it is `2 artanh s = 2s + 2s³/3 + …`, and 2s = f - sf.
    """
    s = f / (f + 2.0)
    square = s * s
    terms = [2 / (2 * k + 3) for k in range(_format(f).logarithm)]
    return f, s * (f - square * _series(square, square * square, terms))


def _log(x: Value) -> Value:
    form = _format(x)
    tiny = x.compare("<", 2.0 ** (1 - form.bias))
    stretch = form.digits + 1
    stretched = tiny.choose(x * 2.0**stretch, x)
    # x = 2^n (1 + f), 1 + f from sqrt 1/2 to sqrt 2
    bottom = x.constant(math.sqrt(0.5)).bits()
    n_bits = (stretched.bits() - bottom).shift_signed(form.digits)
    f = (stretched.bits() - (n_bits << form.digits)).read_as(x) - 1.0
    n = n_bits.signed_to_float(x) - tiny.choose(x.constant(stretch), 0.0)
    f, correction = _log_near_one(f)
    result = n.times_plus(form.ln2[0], f - n.times_plus(-form.ln2[1], correction))
    result = x.compare(">", 0.0).choose(result, math.nan)
    result = x.compare("==", 0.0).choose(-math.inf, result)
    return x.compare("==", math.inf).choose(x, result)


def _softplus(x: Value) -> Value:
    """`max(x, 0) + log(1 + e)` with `e = e^(-|x|)` from 0 to 1."""
    form = _format(x)
    shifted, rest = _reduced((-x.call("fabs")).at_least(-form.edge))
    scale = _power_of_two(shifted)
    e = rest.times_plus(scale, scale)
    large = e.compare(">", math.sqrt(2) - 1)
    f, correction = _log_near_one(large.choose((e - 1.0) * 0.5, e))
    high = large.choose(e.constant(form.ln2[0]), 0.0)
    low = large.choose(e.constant(form.ln2[1]), 0.0)
    return x.at_least(0.0) + (high + (f - (correction - low)))


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), to 2.5 ulp; 0 where it is below the smallest normal number."""
    raise only_compiled("sigmoid")


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, to 2.2 ulp; ±1 exactly where it rounds to that."""
    raise only_compiled("tanh")


def exp(x: Any) -> Any:
    """e^x, to 1.1 ulp; below the normal numbers it underflows gradually."""
    raise only_compiled("exp")


def log(x: Any) -> Any:
    """The natural logarithm, to 1.0 ulp; -inf at 0, NaN below, subnormal numbers included."""
    raise only_compiled("log")


def softplus(x: Any) -> Any:
    """log(1 + e^x), to 1.8 ulp at both ends; 0 where it is below the smallest normal number."""
    raise only_compiled("softplus")


def relu(x: Any) -> Any:
    """max(x, 0), exactly; NaN stays NaN."""
    raise only_compiled("relu")


def power(a: Any, b: Any) -> Any:
    """a^b, lane by lane through the C library: slow, for exponents that nothing better serves."""
    raise only_compiled("power")


elementwise(sigmoid, _sigmoid)
elementwise(tanh, _tanh)
elementwise(exp, _exp)
elementwise(log, _log)
elementwise(softplus, _softplus)
elementwise(relu, lambda x: x.at_least(0.0))
elementwise(power, lambda a, b: a.call("pow", b))
