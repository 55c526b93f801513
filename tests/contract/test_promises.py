"""Training examples learn their pole, and answer ⊥ there, whatever weights they start from."""

from pathlib import Path

import pytest
import torch

from tests.contract.test_docs import ROOT, named, python_blocks

PAGES = [
    ROOT / name for name in ("README.md", "docs/training-guide.md", "docs/reference/training.md")
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_training_examples_keep_their_promise_from_five_seeds(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(Path(page).read_text(encoding="utf-8"))
    training = [source for _, source in blocks if "regressor" not in source.lower()]
    for seed in range(5):
        torch.manual_seed(seed)
        namespace = {"__name__": "page"}
        for source in training:
            words = source.replace("manual_seed(0)", f"manual_seed({seed})")
            exec(words, namespace)
