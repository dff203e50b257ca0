"""`unrolled train lm`: the options of training a language model."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Train a model.", no_args_is_help=True)


def _option(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, show_default=False, **more)


@app.callback()
def _train() -> None:
    """Train a model."""


@app.command("lm")
def language_model(
    out: Annotated[Path, _option("New folder for the run: checkpoints and configuration.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="UTF-8 text; by default Python's language reference.",
        ),
    ] = None,
    cell: Annotated[
        str | None,
        _option("A cell of the catalogue, or a file with a cell's equations. Default: lstm."),
    ] = None,
    level: Annotated[
        str | None, _option("Tokens: character, byte or word. Default: character.")
    ] = None,
    hidden: Annotated[int | None, _option("Hidden size H. Default: 256.")] = None,
    layers: Annotated[int | None, _option("Layers. Default: 1.")] = None,
    embedding: Annotated[int | None, _option("Embedding size. Default: 64.")] = None,
    tied: Annotated[
        bool | None,
        _option("Whether the output layer shares the embedding's weights. Default: tied."),
    ] = None,
    dropout: Annotated[float | None, _option("Dropout after each layer. Default: 0.2.")] = None,
    minutes: Annotated[
        float | None, _option("Train for so many minutes. Default: 2, without --epochs.")
    ] = None,
    epochs: Annotated[int | None, _option("Train for so many passes over the text.")] = None,
    batch: Annotated[int | None, _option("Parallel streams B. Default: 16.")] = None,
    window: Annotated[
        int | None, _option("Steps T of truncated backpropagation. Default: 32.")
    ] = None,
    optimizer: Annotated[str | None, _option("adam or sgd. Default: adam.")] = None,
    learning_rate: Annotated[
        float | None, _option("Peak learning rate. Default: 0.01 for adam, 0.5 for sgd.")
    ] = None,
    weight_decay: Annotated[
        float | None, _option("Decay of the weight matrices. Default: 0.1.")
    ] = None,
    clip: Annotated[float | None, _option("Largest norm of the gradient. Default: 0.25.")] = None,
    average: Annotated[
        float | None, _option("Decay of the averaged weights, 0 for none. Default: 0.995.")
    ] = None,
    seed: Annotated[int | None, _option("Seed of all chance. Default: 1.")] = None,
    checkpoint_every: Annotated[
        float | None, _option("Most seconds between two checkpoints. Default: 30.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
) -> None:
    """Train a recurrent language model on text, and watch it learn."""
    began = time.perf_counter()
    given = dict(locals())
    from ..training.language_run import setting_names
    from .language import train_language_model

    chosen = {name: given[name] for name in setting_names() if given[name] is not None}
    names = tuple(str(file) for file in files or ())
    train_language_model(out, names, cell, chosen, resume=resume, began=began)
