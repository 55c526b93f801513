"""Which rows an epoch takes, in which order, on which rank, and from which scores."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from zeroproof.errors import RangeError, ShapeError
from zeroproof.inference import StrictModule
from zeroproof.training.sampler import AdaptiveSampler, AdaptiveSampling, score_of_targets

INF, NAN = float("inf"), float("nan")
SCORES = (torch.arange(20.0) - 7.2).abs()  # nearest: rows 7, 8, 6, 9, ...


def counted(sampler, epochs=1):
    return Counter(i for _ in range(epochs) for i in sampler)


def informed(rows=20, scores=SCORES, **options):
    sampler = AdaptiveSampler(rows, **options)
    sampler.update(scores)
    return sampler


def near_rows(sampler):
    """Return the rows that come more often than they would without scores."""
    return set((sampler.probabilities > 1 / sampler.rows).nonzero().flatten().tolist())


# --- shares and turns


def test_before_scores_come_an_epoch_is_a_permutation():
    sampler = AdaptiveSampler(range(50))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != sorted(first)


def test_an_epoch_takes_the_share_from_the_rows_with_the_smallest_scores():
    sampler = informed(share=0.6, near=0.2, num_samples=40)
    counts = counted(sampler)
    assert {i for i in counts if counts[i] == 6} == {6, 7, 8, 9}  # 0.6·40 entries, six each
    assert sum(counts.values()) == len(sampler) == 40
    assert {counts[i] for i in range(20) if i not in {6, 7, 8, 9}} == {1}


@given(
    rows=st.integers(1, 40),
    near=st.floats(0.01, 0.5),
    more=st.floats(0, 0.45),
    num_samples=st.integers(1, 90),
    levels=st.integers(1, 40),
    seed=st.integers(0, 2**40),
)
def test_the_law_of_shares_and_turns(rows, near, more, num_samples, levels, seed):
    share = near + more
    scores = torch.arange(rows) % levels + 0.5
    sampler = informed(rows, scores, share=share, near=near, num_samples=num_samples, seed=seed)
    p = sampler.probabilities
    assert p.sum() == pytest.approx(1)
    parts = [(p == value).nonzero().flatten().tolist() for value in p.unique()]
    total = Counter()
    for epochs in range(1, 6):
        counts = counted(sampler)
        assert sum(counts.values()) == num_samples
        total += counts
        for part in parts:
            for some in (counts, total):  # nobody twice before all came once
                each = [some[i] for i in part]
                assert max(each) - min(each) <= 1
            expected = epochs * num_samples * p[part].sum().item()
            assert sum(total[i] for i in part) == pytest.approx(expected, abs=1 + 1e-6)


def test_no_row_is_starved_where_few_places_are_left():
    sampler = informed(share=0.9, near=0.1, num_samples=10)  # one other row in every epoch
    assert set(counted(sampler, epochs=18)) == set(range(20))


def test_rows_come_in_the_end_also_while_the_scores_move():
    sampler = AdaptiveSampler(200, share=0.8, near=0.1)
    others = torch.arange(200) >= 100
    seen = set()
    for _ in range(30):
        sampler.update(torch.rand(200) + 2.0 * others)  # the upper half is never near
        seen |= set(sampler)
    assert seen == set(range(200))


def test_probabilities_are_the_frequencies_and_undo_the_bias():
    sampler = informed(share=0.5, near=0.25)
    p = sampler.probabilities
    counts = counted(sampler, epochs=30)
    frequency = torch.tensor([counts[i] / 600 for i in range(20)], dtype=torch.float64)
    torch.testing.assert_close(frequency, p, rtol=0, atol=1e-12)
    drawn = torch.tensor(sorted(counts.elements()))
    weighted = (SCORES[drawn] / (20 * p[drawn])).mean()
    assert weighted.item() == pytest.approx(SCORES.mean().item())
    assert torch.equal(AdaptiveSampler(4).probabilities, torch.full((4,), 0.25).double())


# --- scores


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0, 1.0, 2.0, 4.0, 5.0], {1}),
        ([3.0, NAN, 2.0, INF, 5.0], {1, 3}),
        ([3.0, NAN, NAN, INF, 5.0], {1, 2, 3}),
        ([0.0, 0.0, 0.0, 4.0, 5.0], {0, 1, 2}),  # equals are treated alike
        ([0, 0, 1, 1, 1], {0, 1}),
        ([1.0, 1.0, 1.0, 1.0, 1.0], set()),
        ([NAN, NAN, INF, NAN, NAN], set()),
    ],
)
def test_which_rows_are_near(scores, expected):
    assert near_rows(informed(5, torch.tensor(scores), near=0.2, share=0.9)) == expected


def test_a_tie_of_all_others_leaves_the_few_below_it_near():
    scores = torch.tensor([1.0, 1.0, 1.0, 0.5, 1.0])
    assert near_rows(informed(5, scores, near=0.4)) == {3}


def test_new_scores_are_in_force_from_the_next_epoch_on():
    sampler = informed(num_samples=200, near=0.05)
    running = iter(sampler)
    sampler.update(SCORES.flip(0))  # row 12 is near now
    assert Counter(running)[7] == 100
    assert counted(sampler)[12] == 100


def test_scores_of_targets():
    y = torch.tensor([[0.0, 3.0], [4.0, 1.0], [1.0, -INF], [NAN, 0.0], [1e-9, 0.0]])
    expected = torch.tensor([10**-0.5, 17**-0.5, 0.0, 0.0, 1.0])
    torch.testing.assert_close(score_of_targets(y), expected)
    assert score_of_targets(y[:, 1] * 5, scale=5.0)[0] == pytest.approx(10**-0.5)
    assert score_of_targets(torch.tensor([1e300], dtype=torch.float64), scale=1e-200) == 0
    assert score_of_targets(torch.tensor([3 + 4j])) == pytest.approx(26**-0.5)


# --- one seed, one order


def test_the_order_is_that_of_seed_epoch_and_scores_alone():
    first, second = informed(seed=5), informed(seed=5)
    orders, before = [list(first) for _ in range(4)], torch.rand(3)
    assert orders == [list(second) for _ in range(4)]
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), before)  # torch's global generator plays no part
    assert list(informed(seed=6)) != list(informed(seed=5))
    second.set_epoch(0)
    assert list(second) == list(informed(seed=5))


def test_neighbouring_seeds_share_no_stream():
    samplers = [AdaptiveSampler(1, seed=seed) for seed in range(20)]
    streams = {s._generator(e).initial_seed() % 2**32 for s in samplers for e in range(-1, 99)}
    assert len(streams) == 20 * 100


@pytest.mark.parametrize("stop", range(6))
def test_a_run_goes_on_as_if_it_had_not_stopped(stop):
    def epochs(sampler, start, stop):
        for epoch in range(start, stop):
            yield list(sampler)
            if epoch % 2:
                sampler.update((SCORES - epoch).abs())

    whole, interrupted = (AdaptiveSampler(20, seed=3, num_samples=7) for _ in range(2))
    expected = list(epochs(whole, 0, 6))
    assert list(epochs(interrupted, 0, stop)) == expected[:stop]
    state = interrupted.state_dict()
    assert all(isinstance(value, int | torch.Tensor) for value in state.values())
    fresh = AdaptiveSampler(20, num_samples=7)
    fresh.load_state_dict(state)
    interrupted.update(SCORES.flip(0))  # the state is a copy
    assert list(epochs(fresh, stop, 6)) == expected[stop:]


# --- ranks


@pytest.mark.parametrize(("num_samples", "ranks"), [(20, 4), (20, 3), (7, 3), (1, 3), (5, 1)])
def test_ranks_deal_out_one_order_in_equal_parts(num_samples, ranks):
    whole = informed(num_samples=num_samples, seed=2)
    parts = [
        informed(num_samples=num_samples, seed=2, num_replicas=ranks, rank=rank)
        for rank in range(ranks)
    ]
    for _ in range(3):
        order, shards = list(whole), [list(part) for part in parts]
        assert {len(shard) for shard in shards} == {len(part) for part in parts}
        dealt = [i for step in zip(*shards, strict=True) for i in step]
        assert dealt[:num_samples] == order
        padding = dealt[num_samples:]
        assert len(padding) < ranks
        assert padding == (order * ranks)[: len(padding)]


# --- messages


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rows": 0}, "rows must be a whole number of at least 1, got 0"),
        ({"rows": []}, "rows must be a whole number of at least 1, got 0"),
        ({"share": 1.0}, "0 < near <= share < 1 must hold, got near=0.1 and share=1.0"),
        ({"near": 0.0}, "0 < near <= share < 1 must hold, got near=0.0 and share=0.5"),
        ({"near": NAN}, "0 < near <= share < 1 must hold, got near=nan"),
        ({"near": 0.6}, "0 < near <= share < 1 must hold, got near=0.6 and share=0.5"),
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"num_replicas": 0}, "num_replicas must be a whole number of at least 1, got 0"),
        ({"num_replicas": 2, "rank": 2}, "rank must be below num_replicas, 2, got 2"),
        ({"rank": -1}, "rank must be a whole number of at least 0, got -1"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        AdaptiveSampler(**{"rows": 20, **options})


def test_scores_and_states_are_checked():
    sampler = AdaptiveSampler(3)
    with pytest.raises(ShapeError, match=r"score must have the shape \(3,\), got \(3, 1\)"):
        sampler.update(torch.ones(3, 1))
    with pytest.raises(RangeError, match=r"real and at least 0, such as D.abs\(\), got -2.0"):
        sampler.update(torch.tensor([1.0, -2.0, NAN]))
    with pytest.raises(RangeError, match=r"real and at least 0.*got torch.complex64"):
        sampler.update(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="of a sampler over 3 rows, got 4 rows"):
        sampler.load_state_dict(AdaptiveSampler(4).state_dict())
    with pytest.raises(RangeError, match="epoch must be a whole number of at least 0, got -1"):
        sampler.set_epoch(-1)
    with pytest.raises(ShapeError, match=r"y must have rows and outputs, got shape \(3, 0\)"):
        score_of_targets(torch.ones(3, 0))
    with pytest.raises(RangeError, match="scale must be a finite number above 0, got 0"):
        score_of_targets(torch.ones(3), scale=0)


# --- the callback


class Line(nn.Module):
    """D = x - shift, N = 1 but for row 12; in training mode it would answer otherwise."""

    def __init__(self, shift):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x):
        assert not torch.is_grad_enabled()
        D = x - self.shift + self.training * 100
        return torch.where(x == 12, 1000.0, 1.0), D


class Rows(Dataset):
    """Rows that must be read one by one."""

    def __init__(self, *columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, i):
        return tuple(column[i] for column in self.columns)


def trainer_of(model, epochs=1):
    return SimpleNamespace(
        model=model.train(),
        history=[{}] * epochs,
        device=torch.device("cpu"),
        accelerator=SimpleNamespace(num_processes=1),
    )


X = torch.arange(20.0)[:, None]


@pytest.mark.parametrize(
    ("score", "expected"), [("angle", {7, 12}), ("denominator", {7, 8})], ids=["angle", "D"]
)
@pytest.mark.parametrize("data", [X, Rows(X, X)], ids=["inputs", "dataset"])
@pytest.mark.parametrize("wrap", [nn.Sequential, StrictModule])
def test_the_rows_near_are_those_near_the_models_pole(data, score, expected, wrap):
    sampler = AdaptiveSampler(20, near=0.1)
    trainer = trainer_of(wrap(Line(7.2)))
    before = torch.get_rng_state()
    AdaptiveSampling(sampler, data, score=score, batch_size=3).on_epoch_end(trainer)
    assert near_rows(sampler) == expected
    assert trainer.model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_several_inputs_outputs_and_answers_that_are_not_finite():
    class Two(nn.Module):
        def forward(self, x, shift):
            N = torch.ones(len(x), 2)
            N[3, 1] = NAN
            D = torch.cat([x - shift, torch.full_like(x, 2.0)], 1)
            return N, D

    sampler = AdaptiveSampler(20, near=0.1)
    data = Rows(X, torch.full_like(X, 7.0), X)
    callback = AdaptiveSampling(sampler, data, score="denominator")
    callback.on_epoch_end(trainer_of(Two()))
    assert near_rows(sampler) == {3, 7}


def test_answers_small_against_the_scale_are_all_alike():
    sampler = AdaptiveSampler(20, near=0.1)
    AdaptiveSampling(sampler, X, scale=1e9).on_epoch_end(trainer_of(Line(7.2)))
    assert near_rows(sampler) == set()


def test_updates_come_every_few_epochs():
    sampler = AdaptiveSampler(20, near=0.1)
    callback = AdaptiveSampling(sampler, X, every=3, score="denominator")
    callback.on_epoch_end(trainer_of(Line(7.2), epochs=2))
    assert near_rows(sampler) == set()
    callback.on_epoch_end(trainer_of(Line(7.2), epochs=3))
    assert near_rows(sampler) == {7, 8}
    callback.on_epoch_end(trainer_of(Line(0.2), epochs=4))
    assert near_rows(sampler) == {7, 8}
    callback.on_epoch_end(trainer_of(Line(0.2), epochs=6))
    assert near_rows(sampler) == {0, 1}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"data": X[:5]}, "data must have the sampler's 20 rows, got 5"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"score": "D"}, "score must be one of 'denominator', 'angle', got 'D'"),
        ({"scale": -1.0}, "scale must be a finite number above 0, got -1.0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_the_callbacks_arguments_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        AdaptiveSampling(AdaptiveSampler(20), **{"data": X, **options})


@pytest.mark.xdist_group("processes")
def test_processes_that_differ_take_the_scores_of_the_first(answers):
    first, second = (each["scores"] for each in answers[1:])
    assert torch.equal(first, second)
    assert (first > 0.1).nonzero().flatten().tolist() == [7, 8]
