"""The product of a kernel that runs for few steps: weights are read where and as they lie.

Packing a matrix costs more than reading it a few times. Unpacked, a row of the weights is one
vector, and each result its dot product with the operand: some rows at a time, whose sums stay in
registers and are added up across their lanes at the end, all together.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.core.typing import signature

from .emission import Matrix, Value, filled, further
from .shared import Written, matrices_of
from .vectors import (
    compiled,
    first_lanes,
    masked_load,
    masked_store,
    only_compiled,
    vector_of,
)

LEAST_SUMS = 8  # a sum waits some cycles for the one before it; so many keep the machine busy


def dots(
    weights: Any, first: Any, count: Any, operand: Any, row: Any, rows: Any, out: Any, column: Any
) -> None:
    """Columns of `out = operand @ weights[first : first + count].T`. For compiled code only.

    Args:
        weights: (…, K), C-contiguous.
        first: the first row of the weights.
        count: how many rows of the weights.
        operand: (…, K), C-contiguous, of the same dtype.
        row: the first row of the operand.
        rows: how many rows of the operand; the results lie in the first rows of `out`.
        out: (…, N), C-contiguous, of the same dtype.
        column: of `out` where the result of the first row of weights lies.
    """
    raise only_compiled("dots")


def _result(weights: Any, first: Any, count: Any, operand: Any, row: Any, *rest: Any) -> Any:
    rows, out, column = rest
    arrays, numbers = (weights, operand, out), (first, count, row, rows, column)
    if any(array.ndim != 2 or array.layout != "C" for array in arrays) or (
        len({array.dtype for array in arrays}) > 1
        or any(not isinstance(number, types.Integer) for number in numbers)
    ):
        raise errors.TypingError(
            f"dots takes C-contiguous matrices of one dtype; found {', '.join(map(str, arrays))}"
        )
    index = types.intp
    return signature(types.none, weights, index, index, operand, index, index, out, index)


class _Writer:
    """Writes the instructions of a product.

    Its arguments are the addresses of the first rows of the weights, the operand and `out`, each
    with the step of their rows; then how many rows of weights and of the operand there are, and
    how many units they have.
    """

    def __init__(self, builder: Any, vector: Any, *arguments: Any) -> None:
        self.builder, self.vector, self.lanes = builder, vector, vector.count
        self.size = 4 if isinstance(vector.element, ir.FloatType) else 8
        self.integer = ir.IntType(64)
        pairs = zip(arguments[:6:2], arguments[1:6:2], strict=True)
        self.weights, self.operand, self.out = (Matrix(*pair, self.whole(1)) for pair in pairs)
        self.count, self.rows, self.units = arguments[6:]
        self.whole_units = builder.and_(self.units, self.whole(-self.lanes))
        self.sums = max(LEAST_SUMS, self.lanes)  # the rows of weights that one tile takes

    def whole(self, number: int) -> Any:
        return ir.Constant(self.integer, number)

    def place(self, start: Any, offset: Any) -> Any:
        """The address of a vector so many numbers after another."""
        place = further(self.builder, start, offset)
        return self.builder.bitcast(place, self.vector.as_pointer())

    def write(self) -> None:
        """All tiles: for some rows of the weights, which then lie near, all rows of the operand."""
        builder, zero, step = self.builder, self.whole(0), self.whole(self.sums)
        with cgutils.for_range_slice(builder, zero, self.count, step, inc=True) as (start, _):
            left = builder.sub(self.count, start)
            last = builder.sub(self.count, self.whole(1))
            numbers = [builder.add(start, self.whole(number)) for number in range(self.sums)]
            # Beyond the last row, the last one is read again, and its result not written.
            inside = [
                builder.select(builder.icmp_signed("<", number, self.count), number, last)
                for number in numbers
            ]
            read = [self.weights.at(builder, number, zero) for number in inside]
            with cgutils.for_range(builder, self.rows) as loop:
                operand = self.operand.at(builder, loop.index, zero)
                out = self.out.at(builder, loop.index, start)
                self.put(self.tile(read, operand), out, left)

    def tile(self, weights: list[Any], operand: Any) -> list[Any]:
        """The sums of some rows of weights with a row of the operand, in all lanes."""
        builder = self.builder
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "unit", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(self.integer)
        sums = [builder.phi(self.vector) for _ in weights]
        k.add_incoming(self.whole(0), before)
        for total in sums:
            total.add_incoming(filled(self.vector, 0.0), before)
        builder.cbranch(builder.icmp_signed("<", k, self.whole_units), body, after)
        builder.position_at_end(body)
        factor = builder.load(self.place(operand, k), align=self.size)
        for total, row in zip(sums, weights, strict=True):
            weight = builder.load(self.place(row, k), align=self.size)
            total.add_incoming(self.fused(weight, factor, total), body)
        k.add_incoming(builder.add(k, self.whole(self.lanes)), body)
        builder.branch(head)
        builder.position_at_end(after)
        return self.rest(weights, operand, sums)

    def rest(self, weights: list[Any], operand: Any, sums: list[Any]) -> list[Any]:
        """The sums with the units that fill no vector."""
        builder = self.builder
        before = builder.block
        body, after = builder.append_basic_block("rest"), builder.append_basic_block("sums")
        left = builder.sub(self.units, self.whole_units)
        builder.cbranch(builder.icmp_signed(">", left, self.whole(0)), body, after)
        builder.position_at_end(body)
        mask = first_lanes(builder, self.vector, left)
        factor = masked_load(builder, self.place(operand, self.whole_units), self.vector, mask)
        more = []
        for total, row in zip(sums, weights, strict=True):
            weight = masked_load(builder, self.place(row, self.whole_units), self.vector, mask)
            more.append(self.fused(weight, factor, total))
        builder.branch(after)
        builder.position_at_end(after)
        found = []
        for total, increased in zip(sums, more, strict=True):
            phi = builder.phi(self.vector)
            phi.add_incoming(total, before)
            phi.add_incoming(increased, body)
            found.append(phi)
        return found

    def fused(self, weight: Any, factor: Any, total: Any) -> Any:
        builder = self.builder
        return Value(builder, weight).times_plus(Value(builder, factor), Value(builder, total)).ir

    def across(self, sums: list[Any]) -> Any:
        """As many sums as lanes: the vector of what each has in all its lanes together.

        Two vectors become one by adding what of both lies in one half to what lies in the other,
        until each lane holds one of them whole; lane by lane their order is the one given.
        """
        builder, lanes, half = self.builder, range(self.lanes), self.lanes // 2
        while half:
            # Lanes whose bit `half` is not set get what lies in a; the others what lies in b.
            one = [lane - half + self.lanes if lane & half else lane for lane in lanes]
            two = [lane + self.lanes if lane & half else lane + half for lane in lanes]
            pairs = zip(sums[: len(sums) // 2], sums[len(sums) // 2 :], strict=True)
            sums = [
                builder.fadd(self.shuffled(a, b, one), self.shuffled(a, b, two)) for a, b in pairs
            ]
            half //= 2
        return sums[0]

    def shuffled(self, a: Any, b: Any, lanes: list[int]) -> Any:
        numbers = ir.VectorType(ir.IntType(32), len(lanes))
        mask = ir.Constant(numbers, [ir.Constant(ir.IntType(32), lane) for lane in lanes])
        return self.builder.shuffle_vector(a, b, mask)

    def put(self, sums: list[Any], out: Any, left: Any) -> None:
        """Write the results of a tile; of the last rows only as many as there are."""
        builder = self.builder
        groups = range(0, self.sums, self.lanes)
        vectors = [self.across(sums[start : start + self.lanes]) for start in groups]
        fits = builder.icmp_signed(">=", left, self.whole(self.sums))
        with builder.if_else(fits) as (inside, edge):
            with inside:
                for start, vector in zip(groups, vectors, strict=True):
                    builder.store(vector, self.place(out, self.whole(start)), align=self.size)
            with edge:
                for start, vector in zip(groups, vectors, strict=True):
                    mask = first_lanes(builder, self.vector, builder.sub(left, self.whole(start)))
                    masked_store(builder, vector, self.place(out, self.whole(start)), mask)


_DOTS = Written("dots", "awawawwww", lambda *given: _Writer(*given).write())


def _call(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, first, count, _, row, rows, _, column = arguments
    found = matrices_of(context, builder, sig, arguments)
    zero = context.get_constant(types.intp, 0)
    entries = (first, zero), (row, zero), (zero, column)
    places = [
        part
        for (matrix, _), entry in zip(found, entries, strict=True)
        for part in (matrix.at(builder, *entry), matrix.row_step)
    ]
    (_, (_, units)), *_ = found
    _DOTS.call(builder, vector_of(context, sig.args[0]), (*places, count, rows, units))
    return context.get_dummy_value()


compiled(dots, _result, _call)
