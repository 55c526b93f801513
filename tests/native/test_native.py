"""Whether native kernels are used, how they share work, and what happens without them."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from zeroproof import native
from zeroproof.layers import Rational
from zeroproof.training import SCMTrainingLoss, lift_targets


def tuples(n):
    N, D, y = torch.randn(3, n)
    y[::50] = torch.inf
    return N.requires_grad_(), D.requires_grad_(), *lift_targets(y)


def step(n):
    """Return what a layer and a loss answer, with their gradients."""
    torch.manual_seed(0)
    layer = Rational((5, 4), init=([0.5, 1, 0.1, 0.2, -0.1, 0.1], [1, 0.1, 0.2, -0.1, 0.1]))
    N, D, *targets = tuples(n)
    x = layer(N)
    loss = SCMTrainingLoss()(outputs=(N, D), targets=targets)
    gradients = torch.autograd.grad(x.payload.sum() + loss, (N, D, *layer.parameters()))
    return x.payload.detach(), loss.detach(), *gradients


def close(left, right):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_disabled_holds_inside_the_block_alone():
    assert native.available()
    with native.disabled():
        assert not native.available()
        with native.disabled():
            pass
        assert not native.available()
    assert native.available()


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(2, dtype=torch.float64),
        torch.ones(2, dtype=torch.float16),
        torch.ones(2, device="meta"),
        torch.ones(2, dtype=torch.complex64),
    ],
    ids=["float64", "float16", "meta", "complex"],
)
def test_other_tensors_are_left_to_torch(x):
    assert native.loops_for("layers.rational_loops", torch.ones(2)) is not None
    assert native.loops_for("layers.rational_loops", x) is None
    assert native.loops_for("layers.rational_loops", torch.ones(2), x) is None


def test_transforms_are_left_to_torch():
    seen = []
    torch.func.vmap(lambda x: seen.append(native.served(x)) or x)(torch.ones(3))
    torch.func.grad(lambda x: seen.append(native.served(x)) or x)(torch.tensor(1.0))
    assert seen == [False, False]


def run(code, **environment):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    surroundings = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


LAYER = """
    import torch
    from zeroproof import native
    from zeroproof.layers import Rational
    x = torch.tensor([0.5, 0.0, float("nan")], requires_grad=True)
    y = Rational((1, 1), init=([1, 0], [0, 1]))(x)
    y.payload[0].backward()
    print(native.available(), y.bottom.tolist(), y.payload[0].item(), x.grad.tolist())
"""
ANSWER = "[False, True, True] 2.0 [-1.0, 0.0, 0.0]"


def test_without_numba_torch_answers_and_says_nothing():
    hidden = f"""
    import sys
    sys.modules["numba"] = None  # as if it were not installed
    {LAYER}"""
    assert run(hidden) in {f"{found} {ANSWER}" for found in (True, False)}


def test_an_environment_variable_turns_them_off():
    assert run(LAYER, ZEROPROOF_NATIVE="0") == f"False {ANSWER}"
    assert run(LAYER) == f"True {ANSWER}"


def test_numba_is_loaded_when_it_is_first_needed():
    code = """
    import sys, torch, zeroproof.layers, zeroproof.training, zeroproof.inference
    layer = zeroproof.layers.Rational(dtype=torch.float64)
    layer(torch.ones(3, dtype=torch.float64))
    print("numba" in sys.modules)
    """
    assert run(code) == "False"


def test_kernels_work_where_nothing_can_be_written(tmp_path):
    code = f"""
    import pathlib, sys
    import numba.core.caching
    # no folder is taken as one that can be written
    numba.core.caching.CacheImpl._locator_classes = []
    {LAYER}"""
    assert run(code, NUMBA_CACHE_DIR="") == f"True {ANSWER}"


DIVISION = """
    import torch
    from zeroproof.scm import SCM
    x = torch.tensor([0.5, 0.0], requires_grad=True)
    y = SCM(torch.ones(2)) / SCM(x)
    y.payload[0].backward()
    print(y.bottom.tolist(), y.payload[0].item(), x.grad.tolist())
"""
QUOTIENT = "[False, True] 2.0 [-1.0, 0.0]"


def test_kernels_that_were_cut_off_on_disk_are_made_anew(tmp_path):
    def kept(pattern):
        return {path: path.stat().st_size for path in tmp_path.rglob(pattern)}

    assert run(DIVISION, NUMBA_CACHE_DIR=str(tmp_path)) == QUOTIENT
    for pattern in ("*.nbc", "*.nbi"):  # kernels, and the list of them
        whole = kept(pattern)
        assert len(whole) > 2
        for path, size in whole.items():
            os.truncate(path, size // 2)
        assert run(DIVISION, NUMBA_CACHE_DIR=str(tmp_path)) == QUOTIENT
        assert kept(pattern).keys() == whole.keys()
        assert all(size > whole[path] // 2 for path, size in kept(pattern).items())


def test_kernels_work_where_the_disk_is_full(tmp_path):
    full = f"""
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    {DIVISION}"""
    pytest.importorskip("resource")
    assert run(full, NUMBA_CACHE_DIR=str(tmp_path)) == QUOTIENT
    assert not [path for path in tmp_path.rglob("*.nb*") if path.stat().st_size]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_threads_share_the_work(monkeypatch):
    with native.disabled():
        wanted = step(3000)
    monkeypatch.setattr(native, "_GRAIN", 500)
    close(step(3000), wanted)
    assert all(torch.equal(a, b) for a, b in zip(step(3000), step(3000), strict=True))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("rows", [1, 3])
def test_parts_cover_everything_in_order(rows, monkeypatch):
    monkeypatch.setattr(native, "_GRAIN", 30)
    for n in (0, 3, 60, 63, 99):
        parts = native.in_parts(lambda start, stop: (start, stop), n, rows)
        assert [entry for part in parts for entry in range(*part)] == list(range(n))
        assert all(start % rows == 0 for start, _ in parts)


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_another_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(native, "_GRAIN", 1)

    def fail(start, stop):
        if start:
            raise ValueError("the second part")

    with pytest.raises(ValueError, match="the second part"):
        native.in_parts(fail, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork has no forks to fear")
def test_a_fork_makes_threads_of_its_own():
    code = """
    import os, torch
    from zeroproof import native
    torch.set_num_threads(2)
    native._GRAIN = 1
    assert native.in_parts(lambda *part: part, 4) == [(0, 2), (2, 4)]
    child = os.fork()
    if child == 0:
        os._exit(0 if native.in_parts(lambda *part: part, 4) == [(0, 2), (2, 4)] else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code) == "0"


def test_a_platform_without_forks_needs_none():
    code = """
    import logging, multiprocessing, os, random, torch
    del os.register_at_fork
    import zeroproof.layers
    print(zeroproof.layers.Rational((1, 1))(torch.ones(2)).payload.tolist())
    """
    assert run(code) == "[1.0, 1.0]"


def test_work_at_the_end_of_the_interpreter_is_done_by_one_thread():
    code = """
    import atexit, torch
    from zeroproof import native
    torch.set_num_threads(2)
    native._GRAIN = 1
    atexit.register(lambda: print(native.in_parts(lambda *part: part, 4)))
    """
    assert run(code) == "[(0, 4)]"


def test_the_way_may_change_between_forward_and_backward():
    for first in (True, False):
        layer = Rational((5, 4), "tensor")
        x = torch.randn(100, requires_grad=True)
        N, D, *targets = tuples(100)
        if first:
            loss = layer(x).sum() + SCMTrainingLoss()(outputs=(N, D), targets=targets)
            with native.disabled():
                loss.backward()
        else:
            with native.disabled():
                loss = layer(x).sum() + SCMTrainingLoss()(outputs=(N, D), targets=targets)
            loss.backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad, torch.ones(100))
        assert N.grad is not None
        assert N.grad.isfinite().all()
