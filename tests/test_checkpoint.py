import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unrolled.training.checkpoint import (
    CheckpointError,
    RunFolder,
    below_prefix,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    with_prefix,
)
from unrolled.training.optimisation import WeightAverage, make_optimizer, set_rate

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7), "rng": torch.get_rng_state()}
FACTS = {"step": 3, "loss": 0.1, "history": [{"step": 1}], "best": None}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "deep" / "run")


def _refused(call, *arguments: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_back_exactly(folder: RunFolder) -> None:
    folder.write("last", TENSORS, FACTS)
    tensors, facts = folder.read("last")
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_configuration_is_readable_and_carries_its_version(folder: RunFolder) -> None:
    folder.write_config({"task": "Übung", "size": 3})
    text = (folder.path / "config.json").read_text(encoding="utf-8")
    assert "Übung" in text
    assert text.count("\n") > 3
    assert folder.read_config() == {
        "format": "unrolled-run",
        "version": 1,
        "task": "Übung",
        "size": 3,
    }


def test_a_checkpoint_carries_its_version(folder: RunFolder, monkeypatch) -> None:
    folder.write("last", TENSORS, FACTS)
    monkeypatch.setattr("unrolled.training.checkpoint.VERSION", 2)
    assert "not a checkpoint that this Unrolled has written" in _refused(folder.read, "last")


@pytest.mark.parametrize("moment", ["write", "replace"])
def test_a_death_while_writing_leaves_the_previous_checkpoint(
    folder: RunFolder, monkeypatch, moment: str
) -> None:
    folder.write("last", TENSORS, {"step": 1})

    class Killed(BaseException):
        pass

    def die(*arguments: object) -> None:
        raise Killed

    monkeypatch.setattr(os, "fsync" if moment == "write" else "replace", die)
    with pytest.raises(Killed):
        folder.write("last", TENSORS, {"step": 2})
    monkeypatch.undo()
    assert folder.read("last")[1] == {"step": 1}
    folder.write("last", TENSORS, {"step": 3})
    assert folder.read("last")[1] == {"step": 3}
    assert {entry.name for entry in folder.path.iterdir()} == {"last.safetensors"}


def test_a_death_before_anything_is_whole_leaves_a_free_folder(
    folder: RunFolder, monkeypatch
) -> None:
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        folder.write_config({})
    monkeypatch.undo()
    assert list(folder.path.iterdir())
    folder.check_free()


def test_every_cut_of_a_checkpoint_is_noticed(folder: RunFolder) -> None:
    folder.write("last", TENSORS, FACTS)
    file = folder.path / "last.safetensors"
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        assert "last.safetensors is damaged" in _refused(folder.read, "last")


def test_a_changed_number_is_noticed(folder: RunFolder) -> None:
    folder.write("last", TENSORS, FACTS)
    file = folder.path / "last.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert "do not match its checksum" in _refused(folder.read, "last")


def test_foreign_files_are_refused(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    save_file({"a": torch.zeros(3)}, folder.path / "last.safetensors")
    assert "not a checkpoint that this Unrolled has written" in _refused(folder.read, "last")
    (folder.path / "best.safetensors").write_text("hello")
    assert "is damaged or no checkpoint" in _refused(folder.read, "best")
    assert "has no checkpoint first.safetensors" in _refused(folder.read, "first")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no run in"),
        ("{", "is damaged and cannot be read"),
        ("[1]", "does not describe a run of Unrolled"),
        (json.dumps({"model_type": "llama"}), "does not describe a run of Unrolled"),
        (json.dumps({"format": "unrolled-run", "version": 99}), "has format version 99"),
    ],
)
def test_bad_configurations_are_refused(
    folder: RunFolder, content: str | None, message: str
) -> None:
    if content is not None:
        folder.path.mkdir(parents=True)
        (folder.path / "config.json").write_text(content)
    assert message in _refused(folder.read_config)


def test_a_configuration_of_wrong_bytes_is_refused(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "config.json").write_bytes(b"\xff\xfe{}")
    assert "is damaged and cannot be read" in _refused(folder.read_config)


def test_only_new_and_empty_folders_are_free(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new").check_free()
    RunFolder(tmp_path).check_free()
    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not empty" in _refused(RunFolder(tmp_path).check_free)
    assert "is a file" in _refused(RunFolder(tmp_path / "thesis.txt").check_free)
    RunFolder(tmp_path / "run").write_config({})
    assert "already holds a run; go on with it with --resume" in _refused(
        RunFolder(tmp_path / "run").check_free
    )


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    below = RunFolder(tmp_path / "file" / "run")
    assert "cannot be written" in _refused(below.write_config, {})
    assert (tmp_path / "file").read_text() == "mine"


def test_prefixes_part_what_lies_in_one_file() -> None:
    both = with_prefix("a", {"x": torch.tensor(1)}) | with_prefix("ab", {"x": torch.tensor(2)})
    assert below_prefix("a", both) == {"x": torch.tensor(1)}


def test_shared_weights_are_saved_once_and_come_back_shared(folder: RunFolder) -> None:
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    folder.write("best", model_tensors(model), {})
    load_model_tensors(other, folder.read("best")[0])
    assert other[1].weight is other[0].weight
    assert torch.equal(other[1].weight, model[1].weight)


def test_tensors_of_another_model_are_refused_and_change_nothing() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    message = _refused(load_model_tensors, model, model_tensors(nn.Linear(4, 2)))
    assert "weight has shape (2, 4), the model (2, 3)" in message
    assert "bias has shape None" in _refused(
        load_model_tensors, model, {"weight": torch.zeros(2, 3)}
    )
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_optimiser_goes_on_as_if_never_interrupted(name: str, folder: RunFolder) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        set_rate(optimizer, 0.1)
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(name, model, weight_decay=0.1)
    step(model, optimizer)
    tensors = model_tensors(model) | with_prefix("optimizer", optimizer_tensors(optimizer))
    folder.write("last", tensors, {})

    other = nn.Linear(3, 2)
    read, _ = folder.read("last")
    load_model_tensors(other, {name: read[name] for name in ("weight", "bias")})
    resumed = make_optimizer(name, other, weight_decay=0.1)
    load_optimizer_tensors(resumed, below_prefix("optimizer", read))
    for _ in range(3):
        step(model, optimizer)
        step(other, resumed)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_only_matrices_decay() -> None:
    model = nn.Linear(3, 2)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    optimizer = make_optimizer("adam", model, weight_decay=0.5)
    set_rate(optimizer, 0.1)
    model.weight.grad, model.bias.grad = torch.zeros(2, 3), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), weight * 0.95)
    assert torch.equal(model.bias, bias)


def test_the_average_follows_its_formula_and_is_lent_to_the_model() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.5)
    expected = model.weight.item()
    for step, value in enumerate([2.0, 4.0, -1.0] * 5):
        nn.init.constant_(model.weight, value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.in_use():
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert model.weight.item() == -1


def test_no_averaging_is_the_model_itself() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.0)
    nn.init.normal_(model.weight)
    average.update(5)
    assert torch.equal(average.weights["weight"], model.weight)
