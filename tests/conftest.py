"""Every test runs on one thread and, but for those of CUDA, on CPU, whatever machine it is on."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of `auto` is the CPU."""
    if request.module.__name__ != "test_cuda":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
