import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sciflow.train import Engine
from sciflow.train.checkpoint import load_state
from sciflow.train.snapshots import SnapshotBatch

SCRIPT = Path(__file__).parent / "distributed_fit.py"


def run(folder, *launcher):
    folder.mkdir()
    command = [sys.executable, *launcher, str(SCRIPT), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "destroy_process_group" not in done.stderr  # torch complains where it was forgotten
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    return run(folder / "one"), run(folder / "two", *launcher), folder


def test_two_processes_share_a_batch_and_get_its_gradient(runs):
    one, two, _ = runs
    assert (one["world"], two["world"]) == (1, 2) and (one["rows"], two["rows"]) == (64, 32)
    for name, g in one["gradient"].items():
        assert g.abs().max() > 0
        torch.testing.assert_close(two["gradient"][name], g, rtol=1e-6, atol=1e-12)


def test_two_processes_train_the_same_model(runs):
    one, two, _ = runs
    for kind in ("weights", "lbfgs"):
        for name, w in one[kind].items():
            torch.testing.assert_close(two[kind][name], w, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        torch.tensor(two["loss"]), torch.tensor(one["loss"]), rtol=1e-6, atol=0
    )
    for name, w in two["ranks"][0]["weights"].items():
        assert torch.equal(w, two["ranks"][1]["weights"][name])


def test_only_the_main_process_writes(runs):
    _, two, folder = runs
    assert two["files"] == ["checkpoint.pt", "metrics.csv"]
    lines = (folder / "two" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + len(two["loss"])
    state = load_state(folder / "two" / "walkers" / "checkpoint.pt")
    assert len(state["ranks"]) == 2
    a, b = (rank["source"]["x"] for rank in state["ranks"])
    assert a.shape == b.shape == (32,) and not torch.equal(a, b)


def test_each_process_moves_walkers_of_its_own(runs):
    one, two, _ = runs
    a, b = two["first draws"]
    assert not torch.equal(a, b)
    assert two["walkers"] != one["walkers"]
    assert two["ranks"][0]["walkers"] == two["ranks"][1]["walkers"]  # means over both


def test_a_batch_that_cannot_be_shared_is_refused(runs):
    one, two, _ = runs
    assert one["uneven"] == one["uneven walkers"] == ""
    assert "multiple of 2" in two["uneven"]
    assert "not a multiple of the 2 processes" in two["uneven walkers"]


def test_shards_cover_the_batch_in_order():
    batch = {"x": torch.arange(6), "y": SnapshotBatch(torch.rand(6, 2, 1)), "t": torch.tensor(2.0)}
    parts = [Engine(rank, 3, torch.device("cpu")).shard(batch) for rank in range(3)]
    assert torch.equal(torch.cat([p["x"] for p in parts]), batch["x"])
    assert torch.equal(torch.cat([p["y"].x for p in parts]), batch["y"].x)
    assert all(p["t"] == 2 for p in parts)


def test_streams_of_a_seed_differ_and_repeat():
    engine, cpu = Engine(0, 1, torch.device("cpu")), torch.device("cpu")
    streams = [(), (0, 1), (1, 0), (1, 1)]
    draws = [torch.rand(4, generator=engine.generator(3, cpu, *s)) for s in streams]
    again = [torch.rand(4, generator=engine.generator(3, cpu, *s)) for s in streams]
    assert all(torch.equal(a, b) for a, b in zip(draws, again, strict=True))
    assert len({tuple(d.tolist()) for d in draws}) == 4
    plain = torch.rand(4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(draws[0], plain)


def test_auto_is_the_accelerator_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert Engine.start().device.type == expected and Engine.start("cpu").device.type == "cpu"
