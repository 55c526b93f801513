import pytest
import torch

from zeroproof.estimators.trained import RowBatches


def test_rows_stay_together_and_in_order_without_a_seed():
    x, y = torch.arange(5)[:, None], torch.arange(5) * 10
    batches = RowBatches(x, y, batch_size=2)
    found = list(batches)
    assert [batch[0].flatten().tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    assert [batch[1].tolist() for batch in found] == [[0, 10], [20, 30], [40]]
    assert len(batches) == 3


@pytest.mark.parametrize("passes", [1, 3])
def test_every_pass_is_a_new_permutation_that_the_seed_determines(passes):
    x = torch.arange(8)
    batches, same = (RowBatches(x, batch_size=8, seed=3, passes=passes) for _ in range(2))
    first, second = ([batch[0].tolist() for batch in batches] for _ in range(2))
    assert len(first) == len(batches) == passes
    assert all(sorted(rows) == x.tolist() for rows in first)
    everything = first + second
    assert len({tuple(rows) for rows in everything}) == len(everything)
    assert [batch[0].tolist() for batch in same] == first


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, [3, 3, 3, 1]), (4, [4, 4, 2]), (99, [10])])
def test_batches_run_on_from_pass_to_pass(batch_size, sizes):
    batches = RowBatches(torch.arange(5), batch_size=batch_size, seed=0, passes=2)
    found = [batch[0] for batch in batches]
    assert [len(rows) for rows in found] == sizes
    assert len(batches) == len(sizes)
    assert torch.cat(found).bincount().tolist() == [2] * 5


def test_shuffling_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    list(RowBatches(torch.arange(8), batch_size=3, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
