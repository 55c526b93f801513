"""The work space of the chunked loss; what it computes is checked with the combined loss."""

import pytest
import torch

from zeroproof.losses._chunks import room
from zeroproof.training import SCMTrainingLoss


@pytest.mark.parametrize("normalizer", ["detached", "attached", "chordal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_room_is_where_the_chunk_is(normalizer, dtype):
    recipe = SCMTrainingLoss(normalizer=normalizer)._recipe(None)
    assert recipe is not None
    like = torch.ones(7, dtype=dtype)
    with torch.device("meta"):
        work = room(5, like, recipe)
    assert all(x.is_cpu and x.shape == (5,) for x in work)
    assert all(x.dtype is dtype for x in work[1:])
    assert (work.gamma == torch.tensor(recipe.gamma, dtype=work.gamma.dtype)).all()
