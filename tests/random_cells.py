"""Cells that no one thought of: hypothesis draws their equations.

Every value stays within some bounds that do not grow with the number of steps, because what is
drawn keeps to safe forms of `exp`, `log`, `sqrt` and division, and a state is either squashed or
a mixture of its last value and something squashed.
"""

from hypothesis import strategies as st

from unrolled import Cell

# Forms that keep {0}, a bounded vector, bounded, and have finite derivatives everywhere.
_ONE = (
    "sigmoid({0})",
    "tanh({0})",
    "relu({0})",
    "-{0}",
    "abs({0})",
    "softplus({0})",
    "exp(-abs({0}))",
    "log(1 + exp({0} / 4))",
    "log(1 + abs({0}))",
    "sqrt(1 + {0} * {0})",
    "(1 - sigmoid({0}))",
    "tanh({0}) ** 2",
    "tanh({0}) ** 3",
    "0.5 * {0}",
    "rate * {0}",
    "{0} / (1 + rate)",
    "where({0} > 0.25, {0}, 0.5 * {0})",
    "{0} / t",
    "exp(-rate * t) * {0}",
    "({0} - mean({0}))",
    "tanh(sum({0})) * {0}",
    "{0} / sqrt(1 + mean({0} ** 2))",
)
_TWO = (
    "{0} + {1}",
    "{0} - {1}",
    "tanh({0}) * {1}",
    "{0} / (1 + abs({1}))",
    "maximum({0}, {1})",
    "minimum({0}, {1})",
    "where({0} < {1}, tanh({0}), {1})",
    "where({1} >= 0, {0}, {0} / 2)",
    "{0} * sigmoid(mean({0} * {1}))",
    "where({0} < mean({1}), {0}, {1} * 0.5)",
)


class _Writer:
    """Writes the equations of one cell; a value is known with the size that it has."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self.values: dict[str, list[str]] = {}  # size → names of bounded vectors of that size
        self.families: dict[str, tuple[str, str]] = {}  # name → kind, size of the columns
        self.rate = False

    def pick(self, options: list[str] | tuple[str, ...]) -> str:
        return self.draw(st.sampled_from(options))

    def block(self, prefix: str, size: str, columns: str = "") -> str:
        """A block of a family, of a new one or of one that has blocks already, even the same."""
        fitting = [name for name, of in self.families.items() if of == (prefix, columns)]
        new = f"{prefix}{len(self.families) + 1}"
        family = self.pick([*fitting, new])
        self.families[family] = (prefix, columns)
        return f"{family}.{self.pick(['k', 'l'])}{size}"

    def term(self, size: str) -> str:
        """A bounded vector of a size: a product, a diagonal, a vector, or a value as it is."""
        here = self.values.get(size, [])
        kind = self.pick(["product", "product", "bias", "diagonal", "value", "number"])
        if kind == "bias":
            return self.block("b", size)
        if kind == "diagonal" and here:
            return f"{self.block('P', size)} * {self.pick(here)}"
        if kind == "value" and here:
            return self.pick(here)
        if kind == "number":
            source = self.pick(self.values[self.pick(list(self.values))])
            return f"{self.block('b', size)} * mean({source})"
        return self.product(size)

    def product(self, size: str) -> str:
        """A block of parameters and any vector of the step."""
        source = self.pick(list(self.values))
        inner = self.pick(self.values[source])
        if self.draw(st.booleans()):
            inner = f"({inner} * tanh({self.pick(self.values[source])}))"
        return f"{self.block('W', size, source)} @ {inner}"

    def expression(self, size: str) -> str:
        terms = [self.term(size) for _ in range(self.draw(st.integers(1, 3)))]
        text = f"({' + '.join(terms)})"
        for _ in range(self.draw(st.integers(0, 2))):
            if self.draw(st.booleans()):
                text = f"({self.pick(_ONE).format(text)})"
            else:
                other = f"({self.term(size)})"
                text = f"({self.pick(_TWO).format(text, other)})"
        self.rate |= "rate" in text
        return text

    def equation(self, name: str, size: str, right: str) -> None:
        self.lines.append(f"{name} = {right}")
        self.values.setdefault(size, []).append(name)


@st.composite
def random_cells(draw: st.DrawFn) -> Cell:
    """Well-formed cells: one to three states, several stages, sizes of their own."""
    writer = _Writer(draw)
    states = ["h", "c", "m"][: draw(st.integers(1, 3))]
    remembered = draw(st.lists(st.sampled_from(states), unique=True, min_size=1))
    sizes = {state: draw(st.sampled_from(["H", f"H_{state}"])) for state in states}
    writer.values = {"I": ["x"]}
    for state in remembered:
        writer.values.setdefault(sizes[state], []).append(f"{state}_prev")
    for number in range(draw(st.integers(0, 3))):
        size = writer.pick([*sizes.values(), "I", f"K{number}"])
        squash = writer.pick(["tanh", "sigmoid", ""])
        writer.equation(f"v{number}", size, squash + writer.expression(size))
    for state in states:
        # At least one product: parameters show how large a state is.
        size = sizes[state]
        squashed = f"tanh({writer.product(size)} + {writer.expression(size)})"
        if state in remembered and draw(st.booleans()):
            squashed = f"0.9 * {state}_prev + 0.3 * {squashed}"
        writer.equation(state, size, squashed)
    lines = draw(st.permutations(writer.lines))
    previous = [f"{state}_prev" for state in remembered]
    keywords = [*writer.families, *(["rate=0.3"] if writer.rate else [])]
    arguments = ["x", *previous, *(["*", *keywords] if keywords else [])]
    body = [*lines, f"return {', '.join(draw(st.permutations(states)))}"]
    return Cell.parse(f"def drawn({', '.join(arguments)}):\n    " + "\n    ".join(body))


def different_sizes(cell):
    """A number of its own for every size that is free, by the name of a value of that size."""
    first = {}
    for name, letter in cell.sizes.values.items():
        first.setdefault(letter, name)
    free = [letter for letter in cell.sizes.letters if letter != "I"]
    return {first[letter]: 3 + place for place, letter in enumerate(free) if letter in first}
