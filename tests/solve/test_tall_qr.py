import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve import TallQR, spectral_readout, streamed_readout
from zeroproof.solve.tall_qr import buffer_rows

DTYPES = [torch.float64, torch.complex128]


class Blocks:
    """Rows that are made anew at every reading, as from a file."""

    def __init__(self, parts, sizes):
        self.parts, self.sizes, self.readings = parts, sizes, 0

    def __iter__(self):
        self.readings += 1
        yield from zip(
            *([None] * len(self.sizes) if x is None else x.split(self.sizes) for x in self.parts),
            strict=True,
        )


def factor(blocks, like):
    qr = TallQR(like.shape[1], like=like)
    for rows in blocks:
        qr.add(rows)
    return qr.factor()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.sampled_from(DTYPES))
def test_the_factor_has_the_gram_matrix_of_all_rows(sizes, dtype):
    H = torch.randn(sum(sizes), 5, dtype=dtype)
    R = factor(H.split(sizes), H)
    assert R.shape == (5, 5)
    torch.testing.assert_close(R.mH @ R, H.mH @ H)
    torch.testing.assert_close(R, R.triu())


def test_small_singular_values_survive():
    U = torch.linalg.qr(torch.randn(500, 4, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    g = torch.tensor([1.0, 1e-5, 1e-10, 1e-14], dtype=torch.float64)
    H = U * g @ V.T
    R = factor(H.split(37), H)
    torch.testing.assert_close(torch.linalg.svdvals(R), g, rtol=0.05, atol=0)


def test_memory_holds_one_buffer_whatever_the_rows():
    qr = TallQR(3, like=torch.zeros(()))
    qr.add(torch.randn(buffer_rows(3) + 10, 1), torch.randn(buffer_rows(3) + 10, 2))
    assert qr._filled == 3 + 10
    assert len(qr._buffer) == 3 + buffer_rows(3)


def test_bad_blocks_are_refused():
    with pytest.raises(ShapeError, match="rows must have 3 columns, got 2"):
        TallQR(3, like=torch.zeros(())).add(torch.ones(4, 2))
    with pytest.raises(RangeError, match="columns must be a whole number"):
        TallQR(0, like=torch.zeros(()))


def problem(n=600, *, outputs=1, is_complex=False, own_H_D=False):
    x = torch.rand(n, dtype=torch.float64) * 2 - 1
    H_N = torch.tanh(torch.outer(x, torch.linspace(-4, 4, 12).double()) + torch.arange(12) / 3)
    H_D = torch.stack([x**0, x, x * x], 1) if own_H_D else None
    Y_n = torch.stack([1 + j + x for j in range(outputs)], 1)
    Y_d = x[:, None] - 0.3 + 0.01 * torch.randn(n, outputs).double()
    if is_complex:
        Y_d = Y_d + 0.1j
    Y_n = Y_n.to(Y_d)
    if outputs == 1:
        Y_n, Y_d = Y_n[:, 0], Y_d[:, 0]
    return [H_N, H_D, Y_n, Y_d, torch.rand(n).double() + 0.5]


KINDS = {
    "scalar": {},
    "vector": {"outputs": 3},
    "complex": {"is_complex": True},
    "own H_D": {"own_H_D": True},
}


@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("sizes", [[600], [0, 1, 399, 0, 200], [60] * 10], ids=str)
def test_a_stream_gives_the_answer_of_the_rows_in_memory(kind, sizes, separate):
    H_N, H_D, Y_n, Y_d, weight = rows = problem(**kind)
    options = {"rho": 1e-5, "sweeps": 3, "shared_denominator": not separate}
    whole = spectral_readout(H_N, Y_n, Y_d, H_D=H_D, weight=weight, **options)
    blocks = Blocks(rows, sizes)
    streamed = streamed_readout(blocks, **options)
    torch.testing.assert_close(streamed, whole, rtol=1e-10, atol=1e-10)
    assert blocks.readings == 4


def test_more_rows_than_a_buffer_are_reduced_as_they_come():
    H, _, Y_n, Y_d, _ = problem(100_000)
    fit = spectral_readout(H, Y_n, Y_d, rho=1e-5, sweeps=2)
    blocks = Blocks([H, None, Y_n, Y_d], [1000] * 100)
    streamed = streamed_readout(blocks, rho=1e-5, sweeps=2)
    torch.testing.assert_close(streamed, fit, rtol=1e-10, atol=1e-10)


def test_a_one_shot_iterator_is_refused():
    blocks = Blocks(problem(), [600])
    with pytest.raises(DataError, match=r"iterable more than once.*got generator"):
        streamed_readout(iter(blocks))


def test_rows_are_named_by_their_place_in_the_whole():
    rows = problem()
    rows[0][450, 3] = torch.nan
    with pytest.raises(DataError, match=r"H_N must be finite, got otherwise in row 450$"):
        streamed_readout(Blocks(rows, [200] * 3))


def test_unlike_blocks_are_refused():
    first, second = problem(), problem(own_H_D=True)
    with pytest.raises(ShapeError, match=r"all blocks must be alike, got real, one basis.*two"):
        streamed_readout([tuple(first), tuple(second)])


def test_rows_that_change_in_number_are_refused():
    class Shrinking(Blocks):
        def __iter__(self):
            yield from list(super().__iter__())[self.readings :]

    with pytest.raises(DataError, match="same rows in every sweep, got 400, then 200"):
        streamed_readout(Shrinking(problem(), [200] * 3))


def test_no_rows_at_all_are_refused():
    with pytest.raises(DataError, match="at least one row, got none"):
        streamed_readout([])


WORKER = """
import sys, torch
import torch.distributed as dist
from zeroproof.errors import DataError
from zeroproof.solve import streamed_readout
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
rows = torch.load(f"{folder}/rows.pt")
answers = []
for shares in ([250, 350], [600, 0], [0, 600]):
    mine = [x.split(shares)[rank] for x in rows]
    blocks = list(zip(*(x.split(100) for x in mine))) if shares[rank] else []
    answers.append(tuple(streamed_readout(blocks, rho=1e-5, sweeps=3)))
if rank == 0:
    rows[0][7] = torch.nan
try:
    streamed_readout([tuple(rows)])
except DataError as error:
    answers.append(str(error))
alone = [x.split([300, 300])[rank] for x in torch.load(f"{folder}/rows.pt")]
answers.append(tuple(streamed_readout([tuple(alone)], rho=1e-5, distributed=False)))
torch.save(answers, f"{folder}/answers{rank}.pt")
dist.destroy_process_group()
"""


def test_processes_combine_their_rows(tmp_path):
    H, _, Y_n, Y_d, weight = problem(outputs=2)
    # H serves as both bases: every part has rows to hand out
    torch.save([H, H[:, :4].contiguous(), Y_n, Y_d, weight], tmp_path / "rows.pt")
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)])
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    first, second = (torch.load(tmp_path / f"answers{rank}.pt") for rank in range(2))
    options = {"rho": 1e-5, "sweeps": 3}
    whole = spectral_readout(H, Y_n, Y_d, H_D=H[:, :4].contiguous(), weight=weight, **options)
    for answers in (first, second):
        for answer in answers[:3]:
            torch.testing.assert_close(answer, tuple(whole), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(first[0][:2], second[0][:2], strict=True))
    assert first[3] == "H_N must be finite, got otherwise in row 7"
    assert second[3] == f"process 0 could not use its rows: {first[3]}"
    assert not torch.allclose(first[4][0], second[4][0], rtol=1e-6)
