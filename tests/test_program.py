"""Lowering equations to a program, and the listing that a person reads."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from own_cells import OWN_CELLS
from passes import Case
from random_cells import random_cells

from unrolled import Cell, cells, functions
from unrolled.backends import reference
from unrolled.backends.blocks import split_blocks
from unrolled.backends.steps import Steps
from unrolled.derivative import differentiate, kept_values
from unrolled.language.sizes import ONE
from unrolled.listing import listing
from unrolled.program import Instruction, Total, lower

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}
every_cell = pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())


def lowered(*equations, head="def f(x, h_prev, *, W, U, b, k=3):"):
    cell = Cell.parse("\n    ".join([head, *equations, "return h"]))
    return [str(instruction) for instruction in cell.program.instructions]


# lowering


def test_each_operation_becomes_an_instruction_in_the_order_of_the_text():
    assert lowered("h = tanh(W.h @ x + U.h @ h_prev + b.h)") == [
        "_1 = W.h @ x",
        "_2 = U.h @ h_prev",
        "_3 = _1 + _2",
        "h_pre = _3 + b.h",
        "h = tanh(h_pre)",
    ]


def test_a_constant_is_its_number_and_a_name_for_a_value_is_an_instruction():
    head = "def f(x, h_prev, *, k=3):"
    assert lowered("h = k * h_prev + y", "y = x", head=head) == [
        "y = x",
        "_1 = 3 * h_prev",
        "h = _1 + y",
    ]


def test_names_that_are_taken_are_not_given_again():
    program = Cell.parse(
        "def f(x, h_prev, *, W):\n"
        "    h_pre = W.a @ x\n"
        "    h = tanh(h_pre * h_prev + x)\n"
        "    return h\n"
    ).program
    names = [instruction.name for instruction in program.instructions]
    assert len(set(names)) == len(names)
    assert names[0] == "h_pre"
    assert names[-1] == "h"


@every_cell
def test_a_program_uses_earlier_values_only_and_knows_every_size(cell):
    for program in (cell.program, cell.forward, cell.backward):
        there = set(program.given)
        for instruction in program.instructions:
            for name in instruction.values:
                assert name in there or program.is_parameter(name), f"{name} in {instruction}"
            assert instruction.name not in there
            there.add(instruction.name)
            assert instruction.name in program.sizes
        assert program.wanted <= there


def test_what_a_program_receives_hands_on_and_gives():
    program = cells.projected_lstm.program
    assert program.inputs == (("x",),)
    assert program.carried == (("h_prev", "h"), ("c_prev", "c"))
    assert program.outputs == (("h",),)
    assert program.given == {"x", "h_prev", "c_prev", "t"}
    assert program.wanted == {"h", "c"}
    assert program.with_outputs(("h", "c"), ("i",)).wanted == {"h", "c", "i"}
    assert program.families["V"] == ("V.h",)
    assert program.shapes["W.i"] == ("H_c", "I")
    assert (program.sizes["h_prev"], program.sizes["c_prev"]) == ("H_h", "H_c")
    assert program.is_parameter("V.h")
    assert not program.is_parameter("h")
    assert [user.name for user in program.uses()["c"]] == ["_15"]


def test_a_state_that_no_equation_remembers_is_carried_too():
    program = Cell.parse(
        "def f(x, c_prev):\n    c = 0.5 * c_prev\n    y = c * x\n    return y, c\n"
    ).program
    assert program.carried == (("y_prev", "y"), ("c_prev", "c"))
    assert program.sizes["y_prev"] == program.sizes["y"]


def test_a_number_has_no_size():
    program = OWN_CELLS["clock"].program
    assert program.sizes["phase"] == program.sizes["k"] == ONE


def test_equal_programs_are_equal_and_hash_alike():
    once, again = lower(cells.gru.equations), lower(cells.gru.equations)
    assert once == again
    assert hash(once) == hash(again)
    assert once != cells.gru_original.program


def test_the_parts_of_an_instruction():
    product = Instruction("dx", "matmul_t", ("W.i", "di", "W.f", "df"))
    assert product.pairs == (("W.i", "di"), ("W.f", "df"))
    assert product.operands == ("di", "df")
    assert str(product) == "dx = W.iᵀ @ di + W.fᵀ @ df"
    power = Instruction("p", "pow", ("a", -0.5))
    assert power.values == power.operands == ("a",)
    assert str(power) == "p = a ** (-0.5)"
    assert str(Instruction("n", "neg", ("a",))) == "n = -a"
    assert str(Instruction("n", "add", ("a", 0.12345678901))) == "n = a + 0.12345678901"
    assert str(Total("W.i", ("di", "x"))) == "dW.i += di ⊗ x"
    assert str(Total("b.i", ("di",))) == "db.i += di"


# the listing

LSTM = """\
lstm: one step
  given     x                                  # I
  received  h_prev, c_prev                     # H
  family    W.i, W.f, W.g, W.o                 # (H, I)
  family    U.i, U.f, U.g, U.o                 # (H, H)
  family    b.i, b.f, b.g, b.o                 # (H)
    i = sigmoid(W.i @ x + U.i @ h_prev + b.i)  # H
    f = sigmoid(W.f @ x + U.f @ h_prev + b.f)  # H
    g = tanh(W.g @ x + U.g @ h_prev + b.g)     # H
    o = sigmoid(W.o @ x + U.o @ h_prev + b.o)  # H
    c = f * c_prev + i * g                     # H
    h = o * tanh(c)                            # H
  hands on  h as h_prev, c as c_prev
  gives     h                                  # H"""

SIMPLE_BACKWARD = """\
simple_backward: one step, from the last to the first
  given     x                    # I
  given     h, h_prev            # H
  given     dh_out               # H
  received  dh_next              # H
  family    W.h                  # (H, I)
  family    U.h                  # (H, H)
  family    b.h                  # (H)
    dh = dh_next + dh_out        # H
    dh_pre = dh * (1 - h * h)    # H
    dh_prev = U.hᵀ @ dh_pre      # H
    dx = W.hᵀ @ dh_pre           # I
  hands on  dh_prev as dh_next
  gives     dx                   # I
  sums up   dW.h += dh_pre ⊗ x   # (H, I)
  sums up   dU.h += dh_pre ⊗ h_prev  # (H, H)
  sums up   db.h += dh_pre       # (H)"""


def squeezed(text):
    """Without the spaces that align the sizes."""
    return ["  # ".join(part.rstrip() for part in line.split("  # ")) for line in text.split("\n")]


def test_the_lstm_prints_as_its_equations():
    assert str(cells.lstm) == LSTM


def test_the_derivative_prints_as_equations():
    assert squeezed(str(cells.simple.backward)) == squeezed(SIMPLE_BACKWARD)
    backward = squeezed(str(cells.lstm.backward))
    assert "    do_pre = do * o * (1 - o)  # H" in backward
    assert (
        "    dh_prev = U.iᵀ @ di_pre + U.fᵀ @ df_pre + U.gᵀ @ dg_pre + U.oᵀ @ do_pre  # H"
    ) in backward


def test_a_derivative_subtracts_and_adds_no_negative():
    assert "    dz = dh * h_prev - dh * n  # H" in squeezed(str(cells.gru.backward))
    for cell in ALL_CELLS.values():
        assert "+ -" not in str(cell.backward)
        assert "- -" not in str(cell.backward)


def test_a_cell_shows_every_name_that_a_person_gave():
    assert str(cells.gru) == listing(cells.gru.program)
    head = "def f(x, h_prev):\n"
    cell = Cell.parse(f"{head}    h_pre = x + h_prev\n    h = tanh(h_pre)\n    return h\n")
    # A person who gave a name sees it; the program alone does not know who gave it.
    assert "    h_pre = x + h_prev  # I" in squeezed(str(cell))
    assert "    h = tanh(x + h_prev)  # I" in squeezed(str(cell.program))


def test_sizes_stand_in_one_column():
    for program in (cells.lstm.program, cells.lstm.backward, cells.projected_lstm.backward):
        columns = {line.index("  # ") for line in str(program).split("\n") if "  # " in line}
        assert len(columns) == 1


def test_blocks_of_a_family_are_listed_by_shape():
    cell = Cell.parse(
        "def f(x, h_prev, c_prev, *, W, V):\n"
        "    c = tanh(W.c @ x) + c_prev\n"
        "    h = tanh(W.h @ x) + V.h @ c + h_prev\n"
        "    return h, c\n"
    )
    listing = squeezed(str(cell))
    assert "  family    W.c  # (H_c, I)" in listing
    assert "  family    W.h  # (H_h, I)" in listing
    assert "  received  h_prev  # H_h" in listing
    assert "  received  c_prev  # H_c" in listing


def test_a_name_that_someone_gave_keeps_its_line():
    cell = Cell.parse(
        "def f(x, h_prev, *, W):\n    h_pre = W.h @ x * h_prev\n    h = tanh(h_pre)\n    return h\n"
    )
    assert "    h_pre = W.h @ x * h_prev  # H" in squeezed(str(cell))
    assert "    h = tanh(W.h @ x * h_prev)  # H" in squeezed(str(cell.program))


def test_a_value_that_is_used_twice_keeps_its_line():
    cell = Cell.parse("def f(x, h_prev):\n    h = tanh(x) * tanh(x) + h_prev\n    return h\n")
    listing = squeezed(str(cell.forward))
    assert "    _1 = tanh(x)  # I" in listing
    assert "    h = _1 * _1 + h_prev  # I" in listing


def test_a_value_that_is_kept_keeps_its_line():
    forward = cells.lstm.forward.with_outputs(("h",), kept_values(cells.lstm.backward))
    assert "    _15 = tanh(c)  # H" in squeezed(str(forward))
    assert "    h = o * _15  # H" in squeezed(str(forward))


def test_a_number_without_end_can_be_listed():
    cell = Cell.parse("def f(x, h_prev):\n    h = x + h_prev * (1e308 * 10)\n    return h\n")
    assert "    h = x + h_prev * inf  # I" in squeezed(str(cell.forward))


def equations_of(listing):
    """Name → right side, read from a listing."""
    lines = [line.split("  # ")[0].strip() for line in listing.split("\n") if line[:4] == " " * 4]
    return dict(line.split(" = ", 1) for line in lines)


def assert_a_listing_computes_the_program(cell):
    """What is listed, brackets and all, worked out as Python for one row and one step."""
    case = Case.draw(cell, Steps.dense(1, 1), 4, 4)
    blocks = split_blocks(cell.program, case.sizes, case.parameters)
    around = {name: getattr(functions, name) for name in functions.__all__}
    around |= {
        "abs": abs,
        "sum": lambda a: np.sum(a, -1, keepdims=True),
        "t": 1.0,
        "inf": np.inf,
        "nan": np.nan,
    }
    for family, names in cell.program.families.items():
        parts = {name.removeprefix(f"{family}."): blocks[name] for name in names}
        around[family] = SimpleNamespace(**parts)

    def by_reading(program, given):
        values = {**around, **given}
        with np.errstate(all="ignore"):
            for name, text in equations_of(str(program)).items():
                text = re.sub(r"\|(\w+)\|", lambda size: str(case.sizes[size[1]]), text)
                found = eval(text.replace("ᵀ", ".T"), {"__builtins__": {}}, values)
                # Behind its line stands how many units it has: a number may be that of each.
                values[name] = np.broadcast_to(found, case.sizes.get(program.sizes[name], 1))
        return values

    def compare(program, given, result):
        values = by_reading(program, given)
        for group, found in zip(program.outputs, result.outputs, strict=True):
            parts = [np.broadcast_to(values[v], case.sizes.get(program.sizes[v], 1)) for v in group]
            expected = np.concatenate(parts) if parts else np.zeros(0)
            np.testing.assert_allclose(found[0], expected, rtol=1e-12, atol=1e-13)

    prev = [f"{state}_prev" for state in cell.states]
    given = {"x": case.x[0], **dict(zip(prev, (s[0] for s in case.states), strict=True))}
    adjoint = differentiate(cell.forward)
    forward = cell.forward.with_outputs((cell.states[0],), kept_values(adjoint))
    rest = (case.parameters, case.steps)
    there = reference.run(forward, case.sizes, [case.x], case.states, *rest)
    compare(forward, given, there)
    kept = there.outputs[1]
    back = reference.run(adjoint, case.sizes, [case.x, kept, case.dy], case.dstates, *rest)
    ends = np.cumsum([case.sizes.get(forward.sizes[value], 1) for value in kept_values(adjoint)])
    given |= dict(zip(kept_values(adjoint), np.split(kept[0], ends[:-1]), strict=True))
    given |= {adjoint.inputs[2][0]: case.dy[0]}
    received = [name for name, _ in adjoint.carried]
    given |= dict(zip(received, (gradient[0] for gradient in case.dstates), strict=True))
    compare(adjoint, given, back)


@every_cell
def test_the_listing_says_what_the_program_does(cell):
    assert_a_listing_computes_the_program(cell)


def test_a_number_that_a_product_reads_is_that_of_each_unit():
    cell = Cell.parse("""
def f(x, h_prev, *, W, b):
    u = W.u @ x
    h = tanh(W.h @ x + b.h * mean(u) + h_prev)
    return h
""")
    adjoint = differentiate(cell.forward)
    assert "    du = sum(dh_pre * b.h) / |H_u|  # H_u" in squeezed(str(adjoint))
    assert_a_listing_computes_the_program(cell)


@settings(max_examples=30, deadline=None)
@given(random_cells())
def test_the_listing_of_any_cell_says_what_its_program_does(cell):
    assert_a_listing_computes_the_program(cell)
