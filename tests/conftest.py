"""Shared fixtures: float64 and the CPU unless asked otherwise, and a fixed seed for every test."""

import os
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="torch device of the tests: cpu, cuda")
    parser.addoption("--dtype", default="float64", help="floating type of the tests")


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request) -> torch.dtype:
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(autouse=True)
def _defaults(device, dtype):
    """Tensors made in a test are of the asked type, on the asked device, from a fixed seed."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(previous)


@pytest.fixture
def generator(device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; a test that needs it is skipped where it is absent."""
    folder = os.environ.get("SCIFLOW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SCIFLOW_DATA does not name a folder of data")
    return Path(folder)


@pytest.fixture(scope="session")
def guide_code():
    """The Python under a heading of docs/extending.md, as it stands there."""
    guide = Path(__file__).parents[1] / "docs" / "extending.md"

    def code(heading: str) -> str:
        section = guide.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        return section.partition("```python\n")[2].partition("```")[0]

    return code


@pytest.fixture
def unchecked():
    """No run-time check of annotations: the test is to meet the error a user would meet."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
