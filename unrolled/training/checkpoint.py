"""Run folders: a readable config.json, and checkpoints as safetensors files beside it.

Every file is written under another name, flushed and then renamed over its predecessor, so a
process killed at any moment leaves a folder whose files are whole. A checkpoint is named tensors
and `facts`, whatever JSON can hold; what they mean is the training loop's affair.
"""

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UnrolledError

FORMAT = "unrolled-run"
VERSION = 1
_TEMPORARY = ".unfinished"


class CheckpointError(UnrolledError):
    """A run folder is in the way, missing, damaged or not one of ours."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run.

    Args:
        path: The folder.
    """

    path: Path

    def check_free(self) -> None:
        """Whether a new run can be written here: the folder is new or empty.

        Raises:
            CheckpointError: Something is there already.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path} is a file; name a new folder for the run.")
        if (self.path / "config.json").exists():
            raise CheckpointError(
                f"{self.path} already holds a run; go on with it with --resume, or name another "
                "folder."
            )
        if any(entry.suffix != _TEMPORARY for entry in self.path.iterdir()):
            raise CheckpointError(
                f"{self.path} is not empty and holds no run; name a new folder for the run."
            )

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes config.json; the folder is made if it is not there.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        head = {"format": FORMAT, "version": VERSION}
        self.write_json("config.json", head | config)

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote.

        Raises:
            CheckpointError: There is no run, or its config.json is damaged, foreign or newer.
        """
        file = self.path / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"There is no run in {self.path} (it has no config.json); train one with "
                f"`unrolled train lm --out {self.path}`."
            ) from None
        except NotADirectoryError:
            raise CheckpointError(
                f"{self.path} is a file; name the folder of a training run."
            ) from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} is damaged and cannot be read ({error}).") from None
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise CheckpointError(f"{file} does not describe a run of Unrolled.")
        if config.get("version") != VERSION:
            raise CheckpointError(
                f"{file} has format version {config.get('version')!r}; this version of Unrolled "
                f"reads {VERSION}."
            )
        return config

    def write_json(self, name: str, value: object) -> None:
        """Writes a value as a readable JSON file.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
        self._replace(name, text.encode("utf-8", "surrogatepass"))

    def has(self, name: str) -> bool:
        """Whether there is a checkpoint of that name, such as `best` or `last`."""
        return (self.path / f"{name}.safetensors").exists()

    def write(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Writes the checkpoint `name`; the previous one stays until the new one is whole.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "checksum": _checksum(tensors),
            "facts": json.dumps(facts),
        }
        self._replace(f"{name}.safetensors", save(tensors, metadata))

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and facts of the checkpoint `name`.

        Raises:
            CheckpointError: It is missing, damaged or foreign.
        """
        file = self.path / f"{name}.safetensors"
        if not file.exists():
            raise CheckpointError(f"The run in {self.path} has no checkpoint {file.name}.")
        try:
            # Read in one go: a run that is still training may replace the file at any moment.
            content = file.read_bytes()
            tensors, metadata = load(content), _metadata(content)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{file} is damaged or no checkpoint; it cannot be read ({error})."
            ) from None
        if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
            raise CheckpointError(f"{file} is not a checkpoint that this Unrolled has written.")
        if metadata.get("checksum") != _checksum(tensors):
            raise CheckpointError(f"{file} is damaged: its contents do not match its checksum.")
        facts: dict[str, Any] = json.loads(metadata["facts"])
        return tensors, facts

    def _replace(self, name: str, content: bytes) -> None:
        target = self.path / name
        temporary = self.path / (name + _TEMPORARY)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            raise CheckpointError(
                f"{target} cannot be written: {error.strerror or error}."
            ) from None


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and buffers by name; what is shared appears once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@torch.no_grad()
def load_model_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies tensors into the parameters and buffers of the same names.

    Raises:
        CheckpointError: The names or shapes are not the model's.
    """
    own = model_tensors(model)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise CheckpointError(
                f"The checkpoint does not fit its config.json: {name} has shape "
                f"{found.get(name)}, the model {expected.get(name)}."
            )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's tensors, named `0.exp_avg` and so on by the parameter's number."""
    return {
        f"{number}.{key}": value
        for number, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Gives an optimiser back what `optimizer_tensors` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as `prefix.name`, to lie in one file with others."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def below_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors that `with_prefix` named, under their own names."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: it begins with its header's length, then the header."""
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _checksum(tensors: dict[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(_bytes(tensors[name]), total)
    return f"{total:08x}"


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
