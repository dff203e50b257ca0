"""The house stands as docs/architecture.md draws it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unrolled
from unrolled import cells, derivative
from unrolled.backends import reference
from unrolled.backends.cpu import units
from unrolled.language.operations import ELEMENTWISE, OPERATIONS as LANGUAGE, PRODUCTS, REDUCTIONS
from unrolled.views import latex

PACKAGE = Path(unrolled.__file__).parent

# Rooms from the foundation upwards; a file belongs to the longest prefix that fits. A room imports
# from itself and from rooms above it in this list, and from outside what stands beside it.
ROOMS = {
    "errors": set(),
    "threads": set(),
    "functions": {"numpy"},
    "language": set(),
    "program": set(),
    "listing": set(),
    "simplify": set(),
    "derivative": set(),
    "schedule": set(),
    "backends/steps": {"numpy"},
    "backends/blocks": {"numpy"},
    "backends/files": set(),
    "backends/reference": {"numpy"},
    "cell": {"numpy"},
    "transforms": set(),
    "recurrence": {"numpy"},
    "network": {"numpy"},
    "cells": set(),
    "views": set(),
    "__init__": set(),
    "backends/cpu": {"numpy", "numba", "llvmlite"},
    "lab/course": {"numpy"},
    "lab/checking": {"numpy"},
    "lab/notation": {"numpy"},
    "lab/explanation": {"numpy"},
    "lab/differences": {"numpy"},
    "lab/types": {"numpy", "babel", "threadpoolctl"},
    "lab/pictures": {"numpy", "matplotlib"},
    "lab": set(),
    "lab/notebook": {"numpy", "matplotlib", "marimo", "anywidget", "traitlets"},
    "backends/eager": {"torch"},
    "nn": {"numpy", "torch"},
    "data": {"numpy", "torch"},
    "models": {"numpy", "torch"},
    "decode": {"torch"},
    "training": {"numpy", "torch", "safetensors"},
    "cli": {"numpy", "typer", "rich", "torch", "click"},
}
ORDER = list(ROOMS)
# A program prints itself, and what prints it must know what a program is: `__str__` imports the
# listing when it is called. No other import runs the other way.
EXCEPTIONS = {("program.py", "listing")}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(module):
    """The room of a module named like a path: `backends/cpu/kernel`."""
    fits = [room for room in ROOMS if module == room or module.startswith(room + "/")]
    return max(fits, key=len, default=None)


def imports(file):
    """What a file imports: paths of ours, and names of packages from outside."""
    ours, outside = set(), set()
    here = file.removesuffix(".py").split("/")
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            name = [*base, *(node.module.split(".") if node.module else [])]
            if not node.level and name[0] != "unrolled":
                outside.add(name[0])
                continue
            name = name if node.level else name[1:]
            for alias in node.names:
                whole = "/".join([*name, alias.name])
                is_module = (PACKAGE / f"{whole}.py").exists() or (PACKAGE / whole).is_dir()
                ours.add(whole if is_module else "/".join(name) or "__init__")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == "unrolled":
                    ours.add("/".join(rest) or "__init__")
                else:
                    outside.add(first)
    return ours, outside - set(sys.stdlib_module_names)


@pytest.mark.parametrize("file", FILES)
def test_imports_run_one_way(file):
    module = file.removesuffix(".py").removesuffix("/__init__")
    room = room_of(module)
    if module == "backends":
        assert imports(file) == (set(), set())
        return
    assert room is not None, f"{file} is in no room"
    ours, outside = imports(file)
    for other in ours:
        below = room_of(other)
        assert below is not None, f"{file} imports {other}, which is in no room"
        if (file, other) not in EXCEPTIONS:
            assert ORDER.index(below) <= ORDER.index(room), f"{file} imports {other}: upwards"
    assert outside <= ROOMS[room], f"{file} imports {outside - ROOMS[room]}"


def test_the_exceptions_are_needed_and_wait_for_a_call():
    for file, other in EXCEPTIONS:
        assert other in imports(file)[0]
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        at_the_top = [ast.unparse(node) for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert not any(other in line for line in at_the_top)


def test_every_room_is_there():
    modules = {file.removesuffix(".py").removesuffix("/__init__") for file in FILES}
    for room in ROOMS:
        assert room_of(room) == room
        assert any(room_of(module) == room for module in modules), f"nothing is in {room}"


def test_importing_unrolled_loads_numpy_and_nothing_heavy():
    code = "import sys, unrolled; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    heavy = {"torch", "numba", "llvmlite", "rich", "typer", "safetensors", "scipy", "matplotlib"}
    assert heavy.isdisjoint(loaded.decode().split())


def test_the_lab_needs_no_torch():
    code = (
        "import sys; from unrolled import lab; [getattr(lab, name) for name in lab.__all__]; "
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert "unrolled.lab" in loaded.decode().split()
    assert "torch" not in loaded.decode().split()


def test_the_public_names():
    assert sorted(unrolled.__all__) == [
        *("BackendError", "Cell", "EquationError", "InputError", "SizeError", "UnrolledError"),
        *("bernoulli", "candidate_dropout", "cell", "cells", "clipped", "differentiate"),
        *("dropout", "exp", "initial", "layer_norm", "log", "maximum", "mean", "minimum"),
        *("num_threads", "recurrent_dropout", "relu", "set_num_threads", "sigmoid", "softplus"),
        *("sqrt", "tanh", "where", "zoneout"),
    ]
    for name in unrolled.__all__:
        assert hasattr(unrolled, name)


def test_no_stage_and_no_backend_knows_a_cell_by_name():
    names = {*cells.catalogue()} - {"simple"}  # an English word
    for file in FILES:
        if file.startswith(("language", "backends")) or file in (
            *("program.py", "simplify.py", "derivative.py", "schedule.py", "cell.py"),
        ):
            tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
            words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            words |= {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert names.isdisjoint(words), f"{file} knows {names & words}"


def test_the_equations_stand_in_one_place():
    for equation in ("o * tanh(c)", "c = f * c_prev + i * g", "(1 - z) * n + z * h_prev"):
        places = [f for f in FILES if equation in (PACKAGE / f).read_text(encoding="utf-8")]
        assert places == ["cells.py"]


def test_every_table_has_a_line_for_every_operation():
    known = ELEMENTWISE | REDUCTIONS
    assert LANGUAGE.keys() == known | PRODUCTS
    assert derivative.DERIVATIVES.keys() == ELEMENTWISE
    assert reference.OPERATIONS.keys() == known
    assert units.OPERATIONS.keys() == ELEMENTWISE
    assert units.ADDED_UP.keys() == REDUCTIONS
    assert latex.TYPESET.keys() == LANGUAGE.keys() - {"same"}
    eager = pytest.importorskip("unrolled.backends.eager")
    assert eager.OPERATIONS.keys() == known


def test_files_have_one_subject():
    for file in FILES:
        lines = (PACKAGE / file).read_text(encoding="utf-8").count("\n")
        assert lines <= 500, f"{file} has {lines} lines"
