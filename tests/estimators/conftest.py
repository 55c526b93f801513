from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def _idle(monkeypatch):
    """Let a busy machine not end a search early: the clock stands still."""
    monkeypatch.setattr("zeroproof.solve.race.time", SimpleNamespace(process_time=lambda: 0.0))
