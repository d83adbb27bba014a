import pytest
from jaxtyping import config


@pytest.fixture
def unchecked():
    """Without the annotations' run-time checks, which only tests have: the user's own errors."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
