"""`unrolled sample`: text from a trained language model, written as it is drawn."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `unrolled train lm`.")],
    prompt: Annotated[
        str | None, typer.Option(help="Text to go on from; by default the beginning of a line.")
    ] = None,
    length: Annotated[int, typer.Option(min=0, help="How many tokens to draw.")] = 500,
    temperature: Annotated[
        float, typer.Option(help="Below 1 bolder on the likely, 0 always the likeliest.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the K likeliest tokens only.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens of this probability only.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of chance; the same seed writes the same text.")
    ] = None,
) -> None:
    """Write text with a trained language model."""
    from .language import write_sample

    write_sample(run, prompt, length, temperature, top_k, top_p, seed)
