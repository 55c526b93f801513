import pytest
import torch

from zeroproof.estimators.rows import row_loader


def test_rows_stay_together_and_in_order_without_a_seed():
    x, y = torch.arange(5)[:, None], torch.arange(5) * 10
    found = list(row_loader(x, y, batch_size=2))
    assert [batch[0].flatten().tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    assert [batch[1].tolist() for batch in found] == [[0, 10], [20, 30], [40]]


@pytest.mark.parametrize("passes", [1, 3])
def test_every_pass_is_a_new_permutation_that_the_seed_determines(passes):
    x = torch.arange(8)
    loader, same = (row_loader(x, batch_size=8, seed=3, passes=passes) for _ in range(2))
    first, second = ([batch[0].tolist() for batch in loader] for _ in range(2))
    assert len(first) == passes
    assert all(sorted(rows) == x.tolist() for rows in first)
    everything = first + second
    assert len({tuple(rows) for rows in everything}) == len(everything)
    assert [batch[0].tolist() for batch in same] == first


def test_shuffling_leaves_the_global_generator_where_it_was_but_for_one_draw_of_torch():
    def after(seed):
        torch.manual_seed(5)
        list(row_loader(torch.arange(8), batch_size=3, seed=seed))
        return torch.rand(())

    assert after(1) == after(2)
