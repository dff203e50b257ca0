"""When each instruction of a program runs: before the loop over time, in it, or after it.

What does not depend on a state leaves the loop: a product with the input is one large product for
all steps before it, and so is a mean over the units of one. So does what no later step needs: the
products that give dx and the gradients of the weights run after it. What stays is put into as few
stages as its data needs, each its products and then the work unit by unit, which may end in sums
over the units. No stage knows a cell by name.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .language.operations import OPERATIONS, PRODUCTS, REDUCTIONS
from .language.sizes import ONE
from .program import Instruction, Program, Total


@dataclass(frozen=True)
class Product:
    """Blocks that are multiplied together, as one product.

    Attributes:
        blocks: the blocks, stacked along their rows.
        operands: of `matmul` one vector, that all blocks are applied to; of `matmul_t` one for
            each block, side by side.
        results: of `matmul` one for each block, side by side; of `matmul_t` one, their sum.
    """

    operation: str
    blocks: tuple[str, ...]
    operands: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        mark = "ᵀ" if self.operation == "matmul_t" else ""
        product = f"{_side_by_side(self.blocks)}{mark} @ {_side_by_side(self.operands)}"
        named = not any(result.startswith("_") for result in self.results)
        return f"{_side_by_side(self.results)} = {product}" if named else product


@dataclass(frozen=True)
class Stage:
    """Products, then the work unit by unit that needs nothing but them and earlier stages."""

    products: tuple[Product, ...]
    instructions: tuple[Instruction, ...]

    @property
    def made(self) -> set[str]:
        """The values that it computes."""
        results = {result for product in self.products for result in product.results}
        return results | {instruction.name for instruction in self.instructions}


@dataclass(frozen=True)
class Outer:
    """Gradients of matrices that share a factor: one product over all steps, after the loop."""

    blocks: tuple[str, ...]
    vectors: tuple[str, ...]
    operand: str

    def __str__(self) -> str:
        gradients = _side_by_side(f"d{block}" for block in self.blocks)
        return f"{gradients} = Σ {_side_by_side(self.vectors)} ⊗ {self.operand}"


@dataclass(frozen=True)
class Schedule:
    """A program sorted into what runs before, in, and after the loop over time.

    Attributes:
        before: stages that run once, on the rows of all steps.
        loop: stages that run at every step.
        after: stages that run once, on the rows of all steps.
        outers: gradients of matrices.
        sums: gradients of vectors of parameters.
    """

    program: Program
    before: tuple[Stage, ...]
    loop: tuple[Stage, ...]
    after: tuple[Stage, ...]
    outers: tuple[Outer, ...]
    sums: tuple[Total, ...]

    @property
    def stages_of_totals(self) -> int:
        """How many stages after the loop the gradients of parameters need."""
        summed = {factor for total in self.program.totals for factor in total.factors}
        return max((n for n, stage in enumerate(self.after, 1) if stage.made & summed), default=0)

    def __str__(self) -> str:
        return "\n".join(self._listing())

    def _listing(self) -> Iterator[str]:
        yield f"schedule of {self.program.name}"
        for title, stages in (
            ("before the loop, for all steps at once", self.before),
            (f"at each step, {len(self.loop)} stage{'s' * (len(self.loop) != 1)}", self.loop),
            ("after the loop, for all steps at once", self.after),
        ):
            if stages or (title.startswith("after") and (self.outers or self.sums)):
                yield f"  {title}"
            for stage in stages:
                yield from (f"    product   {product}" for product in stage.products)
                if stage.instructions:
                    names = (instruction.name for instruction in stage.instructions)
                    named = [name for name in names if not name.startswith("_")]
                    yield f"    per unit  {', '.join(named) or 'values without a name'}"
        yield from (f"    product   {outer}" for outer in self.outers)
        yield from (f"    sum       d{total.parameter} = Σ {total.factors[0]}" for total in
                    self.sums)  # fmt: skip


def schedule(program: Program, few_steps: bool = False) -> Schedule:
    """Sort a program into what runs before, in and after the loop over time.

    Args:
        program: a forward or an adjoint program.
        few_steps: of a forward program, whether all of it stays in the loop: where there are few
            steps, one pass over them costs less than several.
    """
    by_name = program.by_name
    received = {name for name, _ in program.carried}
    depends = _reached_from(received, program.instructions)
    feeds = _needed_for({name for _, name in program.carried}, by_name)
    apart = [i for i in program.instructions if _is_product(i) or _is_reduction(i)]
    early = {i for i in apart if i.name not in depends}
    before = _needed_for({i.name for i in early}, by_name)
    late = {i.name for i in apart if i.name in depends and i.name not in feeds}
    after = _after(program, late, depends, before | feeds)
    if few_steps:
        before, after = set(), set()
    place = [0 if i.name in before else 2 if i.name in after else 1 for i in program.instructions]
    before_stages, loop_stages, after_stages = (
        _with_comparisons(
            _stages(
                [i for i, where in zip(program.instructions, place, strict=True) if where == part],
                depends,
                program,
            ),
            program,
        )
        for part in range(3)
    )
    outers: dict[str, list[Total]] = {}
    for total in program.totals:
        if len(total.factors) == 2:
            outers.setdefault(total.factors[1], []).append(total)
    return Schedule(
        program,
        before_stages,
        loop_stages,
        after_stages,
        outers=tuple(
            Outer(
                tuple(total.parameter for total in totals),
                tuple(total.factors[0] for total in totals),
                operand,
            )
            for operand, totals in outers.items()
        ),
        sums=tuple(total for total in program.totals if len(total.factors) == 1),
    )


def _after(program: Program, late: set[str], depends: set[str], needed: set[str]) -> set[str]:
    """What runs after the loop: `late`, what follows from it, and what nothing else needs.

    What a state goes into must be there for all steps where the loop hands it over, so such work is
    left to the part after the loop only if no more vectors are handed over than without that.
    """
    after = late | _reached_from(late, program.instructions)
    uses = program.uses()
    received = {name for name, _ in program.carried}
    at_hand = program.given - received
    at_hand |= {v for i in program.instructions if i.name in after for v in i.operands}
    at_hand |= {factor for total in program.totals for factor in total.factors}
    for instruction in reversed(program.instructions):
        users = [user.name for user in uses.get(instruction.name, ())]
        if not users or not after.issuperset(users) or instruction.name in program.wanted:
            continue
        vectors = {v for v in instruction.operands if program.size_of(v) != ONE}
        new = {v for v in vectors if not program.is_parameter(v)} - at_hand - after
        if instruction.name not in depends:
            if instruction.name not in needed:
                after.add(instruction.name)
        elif instruction.name not in needed and len(new) <= 1 and new.isdisjoint(received):
            after.add(instruction.name)
            at_hand |= new
    return after


def _stages(
    instructions: list[Instruction], depends: set[str], program: Program
) -> tuple[Stage, ...]:
    """Stages by data flow.

    A product begins the stage after the one that gives its operands, and what needs a sum over
    units stands in the stage after the one that adds it up.
    """
    level: dict[str, int] = {}
    ready: dict[str, int] = {}  # the first stage that can use it
    for instruction in instructions:
        above = max((ready.get(operand, 0) for operand in instruction.operands), default=0)
        level[instruction.name] = above + _is_product(instruction)
        ready[instruction.name] = level[instruction.name] + _is_reduction(instruction)
    for instruction in reversed(instructions):
        # What no state goes into waits for its first use, so that it need not be kept till then.
        waits = not _is_product(instruction) and not _is_reduction(instruction)
        if instruction.name not in depends and waits:
            uses = [
                level[user.name] - _is_product(user)
                for user in instructions
                if instruction.name in user.operands
            ]
            level[instruction.name] = min(uses, default=level[instruction.name])
    stages = []
    for number in sorted(set(level.values())):
        here = [i for i in instructions if level[i.name] == number]
        products = tuple(_grouped((i for i in here if _is_product(i)), program))
        stages.append(Stage(products, tuple(i for i in here if not _is_product(i))))
    return tuple(stages)


def _with_comparisons(stages: tuple[Stage, ...], program: Program) -> tuple[Stage, ...]:
    """Compare again in every stage that chooses: a truth value is never kept in an array."""
    truths = {
        name: instruction
        for name, instruction in program.by_name.items()
        if OPERATIONS[instruction.operation].truth
    }
    completed = []
    for stage in stages:
        work = [i for i in stage.instructions if i.name not in truths]
        compared: list[Instruction] = []
        for instruction in work:
            for operand in instruction.operands:
                if operand in truths and truths[operand] not in compared:
                    compared.append(truths[operand])
        completed.append(Stage(stage.products, tuple(_in_order([*compared, *work], program))))
    return tuple(stage for stage in completed if stage.products or stage.instructions)


def _in_order(instructions: list[Instruction], program: Program) -> list[Instruction]:
    names = [*program.by_name]
    return sorted(instructions, key=lambda instruction: names.index(instruction.name))


def _grouped(instructions: Iterable[Instruction], program: Program) -> Iterator[Product]:
    """Products of one stage that share their operand and the size of their results become one."""
    shared: dict[tuple[str, str], list[Instruction]] = {}
    for instruction in instructions:
        if instruction.operation == "matmul":
            alike = instruction.operands[0], program.size_of(instruction.name)
            shared.setdefault(alike, []).append(instruction)
        else:
            blocks = tuple(matrix for matrix, _ in instruction.pairs)
            yield Product("matmul_t", blocks, instruction.operands, (instruction.name,))
    for (operand, _), together in shared.items():
        yield Product(
            "matmul",
            tuple(i.pairs[0][0] for i in together),
            (operand,),
            tuple(i.name for i in together),
        )


def _is_product(instruction: Instruction) -> bool:
    return instruction.operation in PRODUCTS


def _is_reduction(instruction: Instruction) -> bool:
    return instruction.operation in REDUCTIONS


def _reached_from(names: Iterable[str], instructions: Iterable[Instruction]) -> set[str]:
    """The instructions that need one of `names`, directly or through others."""
    start = set(names)
    reached: set[str] = set()
    for instruction in instructions:
        if not (start | reached).isdisjoint(instruction.operands):
            reached.add(instruction.name)
    return reached


def _needed_for(names: Iterable[str], by_name: dict[str, Instruction]) -> set[str]:
    """The instructions that one of `names` needs, directly or through others; itself too."""
    needed: set[str] = set()
    open_names = [name for name in names if name in by_name]
    while open_names:
        name = open_names.pop()
        if name not in needed:
            needed.add(name)
            open_names.extend(part for part in by_name[name].operands if part in by_name)
    return needed


def _side_by_side(names: Iterable[str]) -> str:
    several = tuple(names)
    return several[0] if len(several) == 1 else f"[{' '.join(several)}]"
