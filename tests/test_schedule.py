"""What leaves the loop over time, and in how many stages the rest of a step runs."""

import pytest
from own_cells import OWN_CELLS

from unrolled import cells
from unrolled.language.operations import OPERATIONS
from unrolled.schedule import Schedule, schedule

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}


def products(stages):
    return [str(product) for stage in stages for product in stage.products]


def test_the_lstm_multiplies_the_input_before_the_loop_and_the_state_once_a_step():
    forward = schedule(cells.lstm.forward)
    assert products(forward.before) == ["[W.i W.f W.g W.o] @ x"]
    assert products(forward.loop) == ["[U.i U.f U.g U.o] @ h_prev"]
    assert (len(forward.loop), forward.after) == (1, ())


def test_no_weight_gradient_is_in_the_loop_of_the_lstm():
    backward = schedule(cells.lstm.backward)
    gates = "[di_pre df_pre dg_pre do_pre]"
    assert products(backward.loop) == [f"dh_prev = [U.i U.f U.g U.o]ᵀ @ {gates}"]
    assert products(backward.after) == [f"dx = [W.i W.f W.g W.o]ᵀ @ {gates}"]
    assert [str(outer) for outer in backward.outers] == [
        f"[dW.i dW.f dW.g dW.o] = Σ {gates} ⊗ x",
        f"[dU.i dU.f dU.g dU.o] = Σ {gates} ⊗ h_prev",
    ]
    assert [total.parameter for total in backward.sums] == ["b.i", "b.f", "b.g", "b.o"]


def test_the_original_gru_needs_two_stages_and_its_gradient_three():
    forward = schedule(cells.gru_original.forward)
    reset = next(i.name for i in forward.loop[0].instructions if i.arguments == ("r", "h_prev"))
    assert [products([stage]) for stage in forward.loop] == [
        ["[U.r U.z] @ h_prev"],
        [f"U.n @ {reset}"],
    ]
    backward = schedule(cells.gru_original.backward)
    assert [len(stage.products) for stage in backward.loop] == [0, 1, 1]


def test_a_cell_without_a_product_of_the_state_has_none_in_the_loop():
    for program in (OWN_CELLS["elementwise"].forward, OWN_CELLS["elementwise"].backward):
        assert products(schedule(program).loop) == []


def test_products_of_the_input_behind_each_other_all_leave_the_loop():
    cell = OWN_CELLS["deep_input"]
    assert [product.split(" @")[0] for product in products(schedule(cell.forward).before)] == [
        "A.e",
        "B.k",
        "W.h",
    ]
    assert products(schedule(cell.forward).loop) == ["U.h @ h_prev"]
    backward = schedule(cell.backward)
    assert products(backward.loop) == ["dh_prev = U.hᵀ @ dh_pre"]
    assert [product.split(" @")[0].split("= ")[-1] for product in products(backward.after)] == [
        "W.hᵀ",
        "B.kᵀ",
        "A.eᵀ",
    ]


@pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
@pytest.mark.parametrize("adjoint", [False, True], ids=["forward", "backward"])
def test_every_instruction_runs_after_what_it_needs(cell, adjoint):
    program = cell.backward if adjoint else cell.forward
    planned = schedule(program)
    available = set(program.given)
    for stages in (planned.before, planned.loop, planned.after):
        for stage in stages:
            for product in stage.products:
                assert available.issuperset(product.operands), product
                available.update(product.results)
            for instruction in stage.instructions:
                values = {v for v in instruction.operands if not program.is_parameter(v)}
                assert available >= values, instruction
                available.add(instruction.name)
    assert available >= program.wanted
    assert available >= {i.name for i in program.instructions if not is_truth(i)}


@pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
def test_the_schedule_is_sound_about_time(cell):
    """Nothing before the loop needs a state, and no step needs what runs after the loop."""
    for program in (cell.forward, cell.backward):
        planned = schedule(program)
        states = {received for received, _ in program.carried}
        assert states.isdisjoint(needs(planned.before))
        handed_on = {name for _, name in program.carried}
        assert handed_on.isdisjoint(made_in(planned.after))
        assert made_in(planned.after).isdisjoint(needs(planned.loop))


def is_truth(instruction):
    return OPERATIONS[instruction.operation].truth


def needs(stages):
    found = set()
    for stage in stages:
        found.update(*(product.operands for product in stage.products))
        found.update(*(instruction.operands for instruction in stage.instructions))
    return found


def made_in(stages):
    found = set()
    for stage in stages:
        found.update(*(product.results for product in stage.products))
        found.update(i.name for i in stage.instructions if not is_truth(i))
    return found


def test_a_schedule_prints_for_a_person():
    text = str(schedule(cells.lstm.backward))
    assert "before the loop" not in text
    assert "  at each step, 2 stages\n    per unit  dh, " in text
    assert "  after the loop, for all steps at once\n    product   dx = " in text
    assert isinstance(schedule(cells.lstm.forward), Schedule)
