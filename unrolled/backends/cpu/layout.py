"""Which array each value of a program lies in: the memory of a kernel.

An array has rows of all steps (`x_steps`) or of the batch only (`h_prev_rows`, and what one stage
leaves for the next). Values that a product takes side by side lie side by side.

Stages without a product follow each other row by row, so that a row stays in the nearest cache: a
*run* of stages begins with one that has products. Where the work after a product needs nothing but
the same units of its results, the two are *fused*: the product hands over some units of some rows
at a time, in a tile that never leaves the nearest cache.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ...language.operations import REDUCTIONS
from ...language.sizes import ONE
from ...program import Instruction, Total
from ...schedule import Product, Schedule
from .packing import wide_group
from .slabs import AFTER, BEFORE, LOOP, Segment, Slab


@dataclass
class Layout:
    """Where the values of a schedule lie.

    Attributes:
        tiles: whether products are packed by groups of units and stages fused, which pays off
            over many steps.
        slabs: name → array.
        inputs, outputs: the arrays of the program's groups.
        states: value received → its buffer (B, size).
        pending: states whose new value goes to a second buffer, because the step still needs
            the old one; the two change places after each step.
        results: product → the array that it writes.
        operands: product → the array that it reads; the operand lies there alone.
        segments: (section, number of the stage) → its segments.
        loop_sums: totals that are added up in the loop → array with a row for each part of the
            batch, which stays in the nearest cache.
        scalars: instructions on numbers alone; each segment that needs one computes it. What is
            summed over units lies in an array, a column for each sum.
        fused: the numbers of the loop's stages that are fused.
        vectors: the size of a result of the loop's products → how many vectors of units a group
            has at least, of which it has some times as many; see `packing`.
        growing: the sizes whose groups may have more than that: if all products are fused.
    """

    schedule: Schedule
    tiles: bool = True
    slabs: dict[str, Slab] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    results: dict[Product, str] = field(default_factory=dict)
    segments: dict[tuple[int, int], list[Segment]] = field(default_factory=dict)
    loop_sums: dict[Total, str] = field(default_factory=dict)
    scalars: dict[str, Instruction] = field(default_factory=dict)
    fused: set[int] = field(default_factory=set)
    vectors: dict[str, int] = field(default_factory=dict)
    growing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        program = self.schedule.program
        self.sections = (self.schedule.before, self.schedule.loop, self.schedule.after)
        self.run_of = dict(self._runs())
        self.scalars = {
            name: instruction
            for name, instruction in program.by_name.items()
            if program.sizes[name] == ONE and instruction.operation not in REDUCTIONS
        }
        if self.tiles:
            loop = self.schedule.loop
            self.fused = {number for number in range(len(loop)) if self._fuses(number)}
            self._group()
        self._place_groups()
        self._place_products()
        self._place_operands()
        self._place_crossing()
        self._place_totals()
        self._cut_segments()
        self._find_pending()

    def _runs(self) -> Iterable[tuple[tuple[int, int], int]]:
        """(section, number of a stage) → the number of the first stage of its run."""
        for section, stages in enumerate(self.sections):
            first = 0
            for number, stage in enumerate(stages):
                first = number if stage.products else first
                yield (section, number), first

    def runs(self, section: int) -> dict[int, list[Segment]]:
        """The number of the first stage of each run that has segments → its segments."""
        found: dict[int, list[Segment]] = {}
        for (part, number), segments in sorted(self.segments.items()):
            if part == section and segments:
                first = self.run_of.get((part, number), number)
                found.setdefault(first, []).extend(segments)
        return found

    def _fuses(self, number: int) -> bool:
        """Whether a stage of the loop needs of its products the units that it works on, only."""
        program, stage = self.schedule.program, self.schedule.loop[number]
        results = [result for product in stage.products for result in product.results]
        letters = {program.sizes[result] for result in results}
        followed = self.run_of.get((LOOP, number + 1)) == number
        if len(letters) != 1 or followed:
            return False
        if any(self._state_made_by(product, number) for product in stage.products):
            return False
        here = {instruction.name for instruction in stage.instructions}
        users = {user.name for result in results for user in program.uses().get(result, ())}
        works = any(self.size_of(instruction) in letters for instruction in stage.instructions)
        sums = any(instruction.operation in REDUCTIONS for instruction in stage.instructions)
        return works and not sums and users <= here

    def _group(self) -> None:
        """A group has whole panels of two vectors; alone in a panel where a block stays alone."""
        for number, stage in enumerate(self.schedule.loop):
            for product in stage.products:
                size = self.schedule.program.sizes[product.results[0]]
                two = len(product.results) % 2 == 1 or number not in self.fused
                self.vectors[size] = max(self.vectors.get(size, 1), 1 + two)
        unfused = {
            self.schedule.program.sizes[product.results[0]]
            for number, stage in enumerate(self.schedule.loop)
            for product in stage.products
            if number not in self.fused
        }
        self.growing = self.vectors.keys() - unfused

    def vectors_of_group(
        self, letter: str, size: int, dtype: np.dtype[Any], shares: int = 1
    ) -> int:
        """How many vectors of units a group has, for so many units that so many threads share."""
        least = self.vectors[letter]
        return wide_group(size, least, shares, dtype) if letter in self.growing else least

    @property
    def shareable(self) -> bool:
        """Whether threads can share the units of a step: the loop has no sums over units."""
        stages = self.schedule.loop
        return not any(i.operation in REDUCTIONS for stage in stages for i in stage.instructions)

    def work_of_a_row(self, sizes: Mapping[str, int]) -> int:
        """About how many multiplications one step of one row takes in the loop.

        Args:
            sizes: letter → number.
        """
        program, numbers = self.schedule.program, {**sizes, ONE: 1}
        units = sum(numbers[program.sizes[v]] for stage in self.schedule.loop for v in stage.made)
        return 8 * units + sum(
            prod(numbers[letter] for letter in program.shapes[block])
            for stage in self.schedule.loop
            for product in stage.products
            for block in product.blocks
        )

    # where things are

    def find(self, values: tuple[str, ...], steps: bool | None = None) -> tuple[str, int] | None:
        """The array that holds `values` side by side, and the position of the first."""
        for slab in self.slabs.values():
            if steps is None or slab.steps == steps:
                for position in range(len(slab.values) - len(values) + 1):
                    if slab.values[position : position + len(values)] == values:
                        return slab.name, position
        return None

    def columns_before(self, slab: str, position: int) -> tuple[str, ...]:
        """The sizes (letters) of the values to the left of a position."""
        sizes = self.schedule.program.sizes
        return tuple(sizes[value] for value in self.slabs[slab].values[:position])

    def homes(self, value: str) -> list[tuple[str, int]]:
        """Every array and position to which a segment writes `value`."""
        given = {*self.inputs, *self.states.values(), *self.results.values()}
        return [
            (slab.name, position)
            for slab in self.slabs.values()
            for position, held in enumerate(slab.values)
            if held == value and slab.name not in given
        ]

    def source(self, value: str, section: int) -> tuple[str, int]:
        """The array and position that a segment of `section` reads `value` from."""
        steps = None if section == LOOP else True
        mine = {i.name for stage in self.sections[section] for i in stage.instructions}
        for slab in self.slabs.values():
            if slab.scratch and value in mine and value in slab.values:
                return slab.name, slab.values.index(value)
        for names in (self.inputs, self.states.values(), self.results.values()):
            for name in names:
                slab = self.slabs[name]
                if value in slab.values and (steps is None or slab.steps):
                    return name, slab.values.index(value)
        found = self.find((value,), steps)
        assert found is not None, f"{value} lies nowhere"
        return found

    # building it up

    def _add(
        self,
        wish: str,
        values: tuple[str, ...],
        steps: bool,
        scratch: bool = False,
        tile: bool = False,
    ) -> str:
        wish = wish.replace(".", "_") + ("_steps" if steps else "_tile" if tile else "_rows")
        name, number = wish, 1
        while name in self.slabs:
            number += 1
            name = f"{wish}_{number}"
        self.slabs[name] = Slab(name, values, steps, scratch, tile)
        return name

    def _place_groups(self) -> None:
        program = self.schedule.program
        for number, group in enumerate(program.inputs):
            wish = group[0] if len(group) == 1 else ("kept" if number == 1 else "inputs")
            self.inputs.append(self._add(wish, group, steps=True))
        for received, _ in program.carried:
            self.states[received] = self._add(received, (received,), steps=False)
        for group in program.outputs:
            wish = group[0] if len(group) == 1 else "kept"
            self.outputs.append(self._add(wish, group, steps=True))

    def _place_products(self) -> None:
        for section, stages in enumerate(self.sections):
            numbered = [(n, p) for n, stage in enumerate(stages) for p in stage.products]
            for number, product in numbered:
                state = self._state_made_by(product, number) if section == LOOP else None
                if state is not None:
                    self.results[product] = self.states[state]
                    continue
                if section != LOOP:
                    whole = [n for n in self.outputs if self.slabs[n].values == product.results]
                    free = [name for name in whole if name not in self.results.values()]
                    if free:
                        self.results[product] = free[0]
                        continue
                families = "".join(dict.fromkeys(b.split(".")[0] for b in product.blocks))
                mark = "t" if product.operation == "matmul_t" else ""
                operand = product.operands[0] if len(product.operands) == 1 else "gates"
                wish = f"{families}{mark}_{operand}".replace("__", "_")
                tile = section == LOOP and number in self.fused
                self.results[product] = self._add(
                    wish, product.results, steps=section != LOOP, tile=tile
                )

    def _state_made_by(self, product: Product, number: int) -> str | None:
        """The state that a product makes whole, if it can be written where the old one lies."""
        program = self.schedule.program
        for received, handed_on in program.carried:
            elsewhere = {*(v for i in program.instructions for v in i.operands)}
            elsewhere |= {v for group in program.outputs for v in group}
            elsewhere |= {v for total in program.totals for v in total.factors}
            later = self.schedule.loop[number:]
            reads = {v for stage in later for i in stage.instructions for v in i.operands}
            reads |= {v for stage in later for p in stage.products for v in p.operands}
            kept = {v for group in program.outputs for v in group}
            if product.results == (handed_on,) and handed_on not in elsewhere:
                return None if received in reads | kept else received
        return None

    def _place_operands(self) -> None:
        """Give every product its operands side by side; those of the loop in an array alone."""
        elsewhere = {outer.vectors for outer in self.schedule.outers}
        elsewhere |= {(outer.operand,) for outer in self.schedule.outers}
        elsewhere |= {p.operands for stage in self.schedule.after for p in stage.products}
        for stage in self.schedule.loop:
            for product in stage.products:
                if self.alone(product.operands) is None:
                    self._add("gates", product.operands, steps=product.operands in elsewhere)
        for section in (BEFORE, AFTER):
            for stage in self.sections[section]:
                for product in stage.products:
                    self._need_steps(product.operands)
        for outer in self.schedule.outers:
            self._need_steps(outer.vectors)
            self._need_steps((outer.operand,))

    def alone(self, operands: tuple[str, ...]) -> str | None:
        """The array that holds these values and nothing else."""
        for slab in self.slabs.values():
            if slab.values == operands:
                return slab.name
        return None

    def _need_steps(self, values: tuple[str, ...]) -> None:
        if self.find(values, steps=True) is None:
            self._add("gates" if len(values) > 1 else values[0], values, steps=True)

    def _place_totals(self) -> None:
        in_loop = {i.name for stage in self.schedule.loop for i in stage.instructions}
        for number, total in enumerate(self.schedule.sums):  # a parameter may have several
            value = total.factors[0]
            if self.find((value,), steps=True) is None:
                if value in in_loop:
                    name = f"d{total.parameter}_{number}_sums"
                    self.loop_sums[total] = name.replace(".", "_")
                else:
                    self._need_steps((value,))

    def _place_crossing(self) -> None:
        """A value that a later stage or section needs must lie somewhere until then."""
        sizes = self.schedule.program.sizes
        made = self._made()
        within: dict[str, None] = {}
        for section, stages in enumerate(self.sections):
            for number, stage in enumerate(stages):
                here = {instruction.name for instruction in stage.instructions}
                needed = [v for i in stage.instructions for v in self.needed_by(i)]
                for value in (v for v in needed if v in made and v not in here):
                    run = self.run_of[section, number]
                    if made[value][0] != section:
                        self._need_steps((value,))
                    elif self.run_of.get(made[value], made[value][1]) == run:
                        within[value] = None
                    elif made[value] != (section, number) and self.find((value,)) is None:
                        wish = "sums" if sizes[value] == ONE else value
                        self._add(wish, (value,), steps=section != LOOP)
        for value in within:  # a number stays in a register until the row is done
            if sizes[value] != ONE and self.find((value,)) is None:
                self._add(value, (value,), steps=False, scratch=True)
        for _, handed_on in self.schedule.program.carried:
            if handed_on in made and made[handed_on][0] != LOOP:
                self._need_steps((handed_on,))

    def _made(self) -> dict[str, tuple[int, int]]:
        """Value → the section and the stage that give it."""
        made: dict[str, tuple[int, int]] = {}
        for section, stages in enumerate(self.sections):
            for number, stage in enumerate(stages):
                for instruction in stage.instructions:
                    made[instruction.name] = (section, number)
        for name in self.states:
            made[name] = (LOOP, 0)
        for product, slab in self.results.items():
            if not self.slabs[slab].steps:
                made |= dict.fromkeys(product.results, (LOOP, 0))
        return made

    def needed_by(self, instruction: Instruction) -> list[str]:
        """The values that an instruction reads: instead of a scalar, what that is computed from."""
        found: list[str] = []
        for value in instruction.operands:
            if value in self.scalars:
                found += self.needed_by(self.scalars[value])
            elif not self.schedule.program.is_parameter(value):
                found.append(value)
        return found

    def size_of(self, instruction: Instruction) -> str:
        """The size of the vectors that an instruction works on."""
        if instruction.operation in REDUCTIONS:
            return self.schedule.program.size_of(instruction.values[0])
        return self.schedule.program.sizes[instruction.name]

    def _cut_segments(self) -> None:
        for section, stages in enumerate(self.sections):
            for number, stage in enumerate(stages):
                by_size: dict[str, list[Instruction]] = {}
                for instruction in stage.instructions:
                    if instruction.name not in self.scalars:
                        by_size.setdefault(self.size_of(instruction), []).append(instruction)
                self.segments[section, number] = [
                    Segment(size, tuple(instructions)) for size, instructions in by_size.items()
                ]
                numbers = (i.name for i in stage.instructions if i.name in self.scalars)
                if wanted := tuple(name for name in numbers if self.homes(name)):
                    self.segments[section, number].insert(0, Segment(ONE, (), numbers=wanted))
        for value, section, earliest in self._copies():
            self._copy(value, section, earliest)

    def _copies(self) -> Iterable[tuple[str, int, int]]:
        """Values that are put into another array by a section that does not compute them."""
        program = self.schedule.program
        computed = {i.name for i in program.instructions} - {
            result for product in self.results for result in product.results
        }
        handed_on = dict.fromkeys(handed_on for _, handed_on in program.carried)
        yield from ((value, LOOP, 0) for value in handed_on if value in self.made_before)
        places = {value: (LOOP, 0) for slab in self.inputs for value in self.slabs[slab].values}
        places |= dict.fromkeys(self.states, (LOOP, 0))
        for section, stages in enumerate(self.sections):
            for number, stage in enumerate(stages):
                for product in stage.products:
                    if self.results[product] not in self.states.values():
                        early = self.made_before.intersection(product.results)
                        for value in product.results:
                            late = section == BEFORE and value not in early
                            places[value] = (LOOP, 0) if late else (section, number)
        for value, (section, number) in places.items():
            if value not in computed and (self.homes(value) or value in handed_on):
                yield value, section, number

    @property
    def made_before(self) -> set[str]:
        """What segments write before the loop: what they compute, and what products there read."""
        stages = self.schedule.before
        computed = {i.name for stage in stages for i in stage.instructions}
        return computed | {
            value
            for number, stage in enumerate(stages)
            for product in stage.products
            for value in product.results
            if self._read_by(value, BEFORE, number) is not None
        }

    def _read_by(self, value: str, section: int, stage: int) -> int | None:
        """The first stage behind one whose products read a value; None if there is none."""
        for number, later in enumerate(self.sections[section][stage + 1 :], stage + 1):
            if any(value in product.operands for product in later.products):
                return number
        return None

    def _copy(self, value: str, section: int, earliest: int) -> None:
        """Copy a value where a segment of its size runs anyway, else in a segment of its own.

        A product that reads it, side by side with others, must find it there.
        """
        size, end = self.schedule.program.sizes[value], len(self.sections[section])
        for number in range(earliest, self._read_by(value, section, earliest) or end):
            for position, segment in enumerate(self.segments[section, number]):
                if segment.size == size:
                    self.segments[section, number][position] = Segment(
                        size, segment.instructions, (*segment.copies, value)
                    )
                    return
        self.segments.setdefault((section, earliest), []).append(Segment(size, (), (value,)))

    def _find_pending(self) -> None:
        """A state is changed in place unless something later in the step needs its old value.

        A fused product reads all of a state when some of its units have changed already; so may
        another thread where threads share the units.
        """
        last_read = dict.fromkeys(self.states, 0)
        written: dict[str, tuple[int, int]] = {}
        for (section, number), segments in self.segments.items():
            if section != LOOP:
                continue
            for position, segment in enumerate(segments):
                moment = number * 1000 + position
                for value in self.read_by(segment):
                    if value in last_read:
                        last_read[value] = max(last_read[value], moment)
                for value in (*segment.copies, *(i.name for i in segment.instructions)):
                    written[value] = (number, position)
        for number, stage in enumerate(self.schedule.loop):
            for product in stage.products:
                for value in product.operands:
                    if value in last_read:
                        until = 1000 * len(self.schedule.loop) if self.tiles else number * 1000 - 1
                        last_read[value] = max(last_read[value], until)
        for received, handed_on in self.schedule.program.carried:
            if handed_on in written:
                number, position = written[handed_on]
                if last_read[received] > number * 1000 + position:
                    self.pending[received] = self._add(f"{received}_new", (), steps=False)

    def read_by(self, segment: Segment) -> list[str]:
        """The vectors that a segment reads and does not compute, parameters aside."""
        program = self.schedule.program
        computed = {instruction.name for instruction in segment.instructions}
        operands = (v for i in segment.instructions for v in i.operands)
        return [
            value
            for value in dict.fromkeys((*segment.copies, *operands))
            if value not in computed
            and not program.is_parameter(value)
            and program.size_of(value) != ONE
        ]
