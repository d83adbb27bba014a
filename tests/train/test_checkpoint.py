import os
from dataclasses import dataclass

import pytest
import torch

from sciflow.errors import DataError
from sciflow.train import checkpoint
from sciflow.train.checkpoint import load_metadata, load_model, load_weights, save_model


@dataclass(frozen=True)
class Config:
    width: int = 3
    kind: str = "silu"


def network(config):
    return torch.nn.Sequential(torch.nn.Linear(2, config["width"]), torch.nn.BatchNorm1d(3))


def test_a_model_file_round_trips(tmp_path):
    module = network({"width": 3})
    module(torch.randn(8, 2))  # the running mean of the batch norm moves
    module.eval()
    path = tmp_path / "deep" / "m.safetensors"
    assert save_model(path, module, Config(), units={"x": "nm"}, extra={"note": [1, 2]}) == path
    info = load_metadata(path)
    assert info.config == {"width": 3, "kind": "silu"} and info.units == {"x": "nm"}
    assert info.extra == {"note": [1, 2]} and info.torch == torch.__version__
    assert info.cls == "torch.nn.modules.container.Sequential" and info.sciflow
    again = load_model(path, network)
    x = torch.randn(5, 2)
    assert torch.equal(again(x), module(x)) and not again.training
    single = network({"width": 3}).float()
    load_weights(path, single)
    assert single[0].weight.dtype == torch.float32
    assert torch.equal(single[0].weight, module[0].weight.float())
    assert os.listdir(path.parent) == ["m.safetensors"]  # no temporary file is left


def test_tied_and_strided_weights_are_saved(tmp_path):
    module = torch.nn.Module()
    module.a = torch.nn.Parameter(torch.randn(3, 4).t())
    module.b = module.a
    module.flag = torch.nn.Buffer(torch.tensor(True))
    path = save_model(tmp_path / "m", module, {})
    other = torch.nn.Module()
    other.a = torch.nn.Parameter(torch.zeros(4, 3))
    other.b = other.a
    other.flag = torch.nn.Buffer(torch.tensor(False))
    load_weights(path, other)
    assert torch.equal(other.b, module.a) and bool(other.flag)


def test_other_names_and_shapes_are_named(tmp_path):
    path = save_model(tmp_path / "m", torch.nn.Linear(2, 3), {})
    with pytest.raises(DataError, match=r"weight has shape \(3, 2\), expected \(4, 2\)"):
        load_weights(path, torch.nn.Linear(2, 4))
    with pytest.raises(DataError, match="0.weight is missing"):
        load_weights(path, torch.nn.Sequential(torch.nn.Linear(2, 3)))
    with pytest.raises(DataError, match="bias is not in the module"):
        load_weights(path, torch.nn.Linear(2, 3, bias=False))


def test_missing_truncated_and_foreign_files_are_named(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(DataError, match="there is no file .*absent"):
        load_metadata(tmp_path / "absent")
    path = save_model(tmp_path / "m", torch.nn.Linear(2, 3), {})
    whole = path.read_bytes()
    for size in (0, 4, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"{path} is truncated or not"):
            load_weights(path, torch.nn.Linear(2, 3))
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(DataError, match=f"{path} is truncated or not"):
        load_metadata(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="not written by sciflow"):
        load_metadata(path)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_VERSION", 99)
    path = save_model(tmp_path / "m", torch.nn.Linear(2, 3), {})
    monkeypatch.undo()
    with pytest.raises(DataError, match="format 99, this sciflow reads up to 1"):
        load_metadata(path)


def test_a_config_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(TypeError, match="config .* cannot be written as JSON"):
        save_model(tmp_path / "m", torch.nn.Linear(2, 3), {"f": torch.zeros(1)})
    with pytest.raises(TypeError, match="extra .* cannot be written as JSON"):
        save_model(tmp_path / "m", torch.nn.Linear(2, 3), {}, extra={"x": float("nan")})
    assert not (tmp_path / "m").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"step": 1})

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.write_atomic(path, fail)
    assert checkpoint.load_state(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_broken_state_is_named(tmp_path):
    path = tmp_path / "state.pt"
    with pytest.raises(DataError, match="there is no file"):
        checkpoint.load_state(path)
    checkpoint.save_state(path, {"x": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=f"{path} is truncated"):
        checkpoint.load_state(path)
    torch.save({"f": Config()}, path)  # a class is code, which a checkpoint must not hold
    with pytest.raises(DataError, match="not a checkpoint"):
        checkpoint.load_state(path)


def test_the_probe_leaves_nothing(tmp_path):
    checkpoint.probe(tmp_path / "new", 1 << 20)
    assert os.listdir(tmp_path / "new") == []
    if hasattr(os, "posix_fallocate"):
        with pytest.raises(OSError):
            checkpoint.probe(tmp_path / "new", 1 << 60)  # more than any disk holds
        assert os.listdir(tmp_path / "new") == []
