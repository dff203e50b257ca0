"""Ours and the peers on the CPU, in one process, on the same arrays: `python -m benchmarks.cpu`.

`shapes` sets LSTM, GRU and simple RNN beside torch.nn, ONNX Runtime, a loop of torch's operations
and its compiled form; `unfused` sets cells that no library has beside such loops and beside our
LSTM. Both first check that all give the same numbers. `features` sets each feature of a layer
beside the layer without it.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import features, machine, report, roofline, shapes, unfused
from benchmarks.turns import ONCE, Turns

SECTIONS = {"shapes": shapes, "unfused": unfused, "features": features}
Section = StrEnum("Section", list(SECTIONS))
Peer = StrEnum("Peer", [(name, name) for name in shapes.OTHERS])
WIDTH = 130  # where no terminal says how wide it is


def main(
    only: Annotated[list[Section] | None, typer.Option(help="Sections; all by default.")] = None,
    cell: Annotated[
        list[str] | None, typer.Option(help="Cells, such as LSTM or peephole_lstm; all by default.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Tiny shapes, a call each: a try.")] = False,
    without: Annotated[
        list[Peer] | None,
        typer.Option(help="Peers that stay out; `unfused` needs its loop."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Every number, for machines.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="A page to write the tables into, between its marks.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="The roofline of `shapes`: .svg, .png.")] = None,
) -> None:
    """Ours and the peers on the CPU, side by side."""
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console = Console(width=WIDTH)
    wanted = frozenset(name.lower() for name in cell or ())
    chosen = [str(section) for section in only or Section]
    known = {name.lower() for section in chosen for name in SECTIONS[section].KINDS}
    if unknown := wanted - known:
        raise typer.BadParameter(
            f"{', '.join(unknown)} is in none of these sections: {', '.join(sorted(known))}."
        )
    if plot and "shapes" not in chosen:
        raise typer.BadParameter("the roofline is that of the section shapes.")
    at_hand = machine.Machine.measured(repeat=1 if quick else 20)
    about = machine.description(at_hand)
    console.print(machine.sentences(about))
    settings = report.Settings(
        at_hand, ONCE if quick else Turns(), wanted, quick, frozenset(map(str, without or ())),
        lambda text: progress.print(text, style="dim", highlight=False),
    )  # fmt: skip
    found = {}
    for name in chosen:
        found[name] = list(SECTIONS[name].run(settings))
        tables = SECTIONS[name].tables(found[name])
        report.show(tables, console)
        if json_file:
            text = json.dumps({"machine": about, "sections": found}, indent=1)
            json_file.write_text(text, encoding="utf-8")
        if markdown:
            parts = [machine.sentences(about), *(table.markdown() for table in tables)]
            report.write(markdown, name, "\n\n".join(parts))
    if plot:
        roofline.draw(at_hand, found["shapes"], plot)


if __name__ == "__main__":
    typer.run(main)
