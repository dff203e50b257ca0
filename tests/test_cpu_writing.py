"""Instructions that products of all kinds write."""

import itertools
from functools import partial

import pytest
from llvmlite import ir

from unrolled.backends.cpu.writing import with_products

VECTOR = ir.VectorType(ir.FloatType(), 8)


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (6, 2), (11, 2), (2, 8), (4, 4), (1, 1)])
def test_each_sum_gets_its_product_and_few_vectors_are_in_registers(rows, columns):
    kinds = [VECTOR.as_pointer()] * (rows + columns) + [VECTOR] * (rows * columns)
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), kinds), "tile")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    places, sums = function.args[: rows + columns], function.args[rows + columns :]
    loads = [partial(builder.load, place) for place in places]
    found = with_products(builder, sums, loads[:rows], loads[rows:])

    instructions = builder.block.instructions
    read = {str(one.operands[0].name): one for one in instructions if one.opname == "load"}
    assert len(read) == len(places) == sum(one.opname == "load" for one in instructions)
    vectors = [read[place.name] for place in places]
    pairs = itertools.product(vectors[:rows], vectors[rows:])
    for product, pair, total in zip(found, pairs, sums, strict=True):
        factors, term = product.args[:2], product.args[2]
        assert {factor.name for factor in factors} == {vector.name for vector in pair}
        assert term is total

    # From its load to its last product a vector takes a register.
    taken = []
    for vector in vectors:
        uses = [n for n, one in enumerate(instructions) if vector in one.operands]
        taken.append(range(instructions.index(vector), max(uses) + 1))
    most = max(sum(n in span for span in taken) for n in range(len(instructions)))
    assert most == min(rows, columns) + 1
