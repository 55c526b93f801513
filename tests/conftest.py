import contextlib
import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

from zeroproof import native

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """Let no test depend on what others drew; a module's generator is called RNG."""
    torch.manual_seed(0)
    drawn = getattr(request.module, "RNG", None) if request.module else None
    if isinstance(drawn, np.random.Generator):
        drawn.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(params=["native", "torch"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with native kernels, and without."""
    assert native.available(), "the tests need the extra `native`"
    with contextlib.nullcontext() if request.param == "native" else native.disabled():
        yield request.param


def pytest_configure(config: pytest.Config) -> None:
    # torch's own compiler instantiates autograd functions, of which torch itself warns
    message = r".*torch\.autograd\.function\.Function.* should not be instantiated"
    config.addinivalue_line("filterwarnings", f"ignore:{message}:DeprecationWarning")
