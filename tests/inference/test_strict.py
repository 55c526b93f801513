import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import NotSupportedError, RangeError, ShapeError
from zeroproof.inference import (
    InferenceConfig,
    Status,
    StrictModule,
    StrictResult,
    strict_inference,
)
from zeroproof.inference.strict import decided

INF, NAN = math.inf, math.nan

# N, D -> decoded, bottom, gap at the defaults, 1e-6 and 1e-4
TABLE = {
    "plain": (3.0, 2.0, 1.5, False, False),
    "negative denominator": (3.0, -2.0, -1.5, False, False),
    "zero": (0.0, 1.0, 0.0, False, False),
    "at tau_train": (1.0, 1e-4, 1e4, False, False),
    "in the gap": (1.0, 1e-5, 1e5, False, True),
    "at tau_infer": (1.0, 1e-6, 1e6, False, True),
    "below tau_infer": (1.0, 9e-7, NAN, True, False),
    "zero denominator": (1.0, 0.0, NAN, True, False),
    "no point": (0.0, 0.0, NAN, True, False),
    "inf above": (INF, 1.0, NAN, True, False),
    "inf above in the gap": (INF, 1e-5, NAN, True, False),
    "inf below": (1.0, INF, NAN, True, False),
    "nan above": (NAN, 1e-5, NAN, True, False),
    "nan below": (1.0, NAN, NAN, True, False),
    "overflow in the gap": (1e308, 1e-5, NAN, True, False),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_the_table_of_cases(row):
    N, D, decoded, bottom, gap = row
    result = strict_inference(
        torch.tensor([N], dtype=torch.float64), torch.tensor([D], dtype=torch.float64)
    )
    assert isinstance(result, StrictResult)
    assert result.decoded.item() == pytest.approx(decoded, rel=1e-15, nan_ok=True)
    assert (result.bottom_mask.item(), result.gap_mask.item()) == (bottom, gap)


numbers = st.floats(width=32)


@given(N=numbers, D=numbers, score=st.sampled_from(["denominator", "angle"]))
def test_masks_are_disjoint_and_decoded_is_finite_exactly_off_bottom(N, D, score):
    config = InferenceConfig(score=score, tau_infer=1e-3, tau_train=1e-1)
    decoded, bottom, gap = strict_inference(torch.tensor([N]), torch.tensor([D]), config)
    assert not (bottom & gap).any()
    assert torch.equal(bottom, ~torch.isfinite(decoded))
    assert torch.equal(bottom, torch.isnan(decoded))


@given(y=st.floats(-1e4, 1e4), c=st.floats(1e-6, 1e6), unit=st.sampled_from([1.0, 1e-6, 1e6]))
def test_the_angle_score_is_free_of_gauge_and_units(y, c, unit):
    one = torch.ones(1, dtype=torch.float64)
    plain = strict_inference(one * y, one, InferenceConfig(score="angle", tau_infer=1e-2))
    config = InferenceConfig(score="angle", tau_infer=1e-2, scale=unit)
    other = strict_inference(one * y * unit * c, one * c, config)
    if not 99 < abs(y) < 101:  # rounding may decide at the threshold itself
        assert torch.equal(plain.bottom_mask, other.bottom_mask)


def test_the_denominator_score_depends_on_the_gauge_as_in_the_guide():
    _, bottom, _ = strict_inference(torch.tensor([1.0, 1e-4]), torch.tensor([1e-3, 1e-7]))
    assert bottom.tolist() == [False, True]


def test_a_shared_denominator_serves_all_outputs():
    N = torch.arange(6.0).reshape(2, 3)
    decoded, bottom, gap = strict_inference(N, torch.tensor([[2.0], [0.0]]))
    assert decoded.shape == bottom.shape == gap.shape == (2, 3)
    assert torch.equal(decoded[0], N[0] / 2)
    assert bottom.tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decoded_in_float32(dtype):
    N, D = torch.tensor([6e4, 1.0], dtype=dtype), torch.tensor([1e-4, 3.0], dtype=dtype)
    result = strict_inference(N, D)
    assert result.decoded.dtype == torch.float32
    assert torch.equal(result.decoded, N.float() / D.float())


def test_complex_values():
    N = torch.tensor([1 + 2j, 1 + 0j, 1j], dtype=torch.complex128)
    D = torch.tensor([1j, 0j, 1e-5j], dtype=torch.complex128)
    decoded, bottom, gap = strict_inference(N, D)
    assert decoded[0].item() == pytest.approx(2 - 1j)
    assert (bottom.tolist(), gap.tolist()) == ([False, True, False], [False, False, True])


def _read_only(array):
    array.flags.writeable = False
    return array


ARRAYS = {
    "plain": lambda a: a,
    "reversed": lambda a: a[::-1],
    "read-only": _read_only,
    "float32": lambda a: a.astype(np.float32),
    "integers": lambda a: a.astype(np.int64),
    "fortran": lambda a: np.asfortranarray(np.stack([a, a + 1])),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_in_arrays_out(make):
    N, D = make(np.array([1.0, 2.0, 3.0])), make(np.array([2.0, 0.0, 4.0]))
    decoded, bottom, gap = strict_inference(N, D)
    assert all(isinstance(x, np.ndarray) for x in (decoded, bottom, gap))
    expected = N / np.where(D == 0, np.nan, D)
    np.testing.assert_array_equal(decoded, expected.astype(decoded.dtype))
    np.testing.assert_array_equal(bottom, D == 0)
    assert gap.dtype == bool


def test_arrays_of_either_byte_order_with_masks_and_of_numbers_alone():
    N = np.ma.array([1, 2, 3], mask=[False, True, False], dtype=">i4")
    decoded, bottom, _ = strict_inference(N[::-1], np.array([2.0, 2.0, 2.0], dtype=">f8"))
    assert bottom.tolist() == [False, True, False]
    np.testing.assert_array_equal(decoded, [1.5, NAN, 0.5])
    with pytest.raises(RangeError, match="D must be an array of numbers, got the dtype <U1"):
        strict_inference(np.ones(1), np.array(["1"]))


BAD_SHAPES = [((3,), (3, 1)), ((2, 3), (2, 2)), ((3,), (1, 3)), ((), (1,)), ((2, 1), (2, 3))]


@pytest.mark.parametrize(("n", "d"), BAD_SHAPES)
def test_shapes_that_do_not_belong_together(n, d):
    with pytest.raises(ShapeError, match="N and D must have equal shapes"):
        strict_inference(torch.ones(n), torch.ones(d))
    with pytest.raises(ShapeError, match="N and D must have equal shapes"):
        strict_inference(np.ones(n), np.ones(d))


@pytest.mark.parametrize(
    ("N", "D", "came"),
    [
        ([1.0], [2.0], "list and list"),
        (torch.ones(1), np.ones(1), "Tensor and ndarray"),
        (1.0, torch.ones(()), "float and Tensor"),
    ],
)
def test_other_kinds_are_refused(N, D, came):
    with pytest.raises(RangeError, match=f"two tensors or two NumPy arrays, got {came}"):
        strict_inference(N, D)


def test_a_wrong_config_is_named():
    with pytest.raises(RangeError, match="config must be an InferenceConfig, got dict"):
        strict_inference(torch.ones(1), torch.ones(1), {"tau_infer": 1e-6})  # pyright: ignore[reportArgumentType]


def test_entries_declared_bottom_are_bottom_and_never_gap():
    bottom = torch.tensor([[True], [False]])
    result = decided(torch.ones(2, 2), torch.full((2, 2), 1e-5), InferenceConfig(), bottom=bottom)
    assert result.bottom_mask.tolist() == [[True, True], [False, False]]
    assert result.gap_mask.tolist() == [[False, False], [True, True]]


# N = 6, D = (2, 0): dL/dN and dL/dD of the sum of decoded values
GRADIENTS = {
    GradientPolicy.CLAMP: ([0.5, 0.0], [-1.0, 0.0]),
    GradientPolicy.PROJECT: ([0.5, 0.0], [-1.5, 0.0]),
    GradientPolicy.REJECT: ([0.0, 0.0], [0.0, 0.0]),
    GradientPolicy.PASSTHROUGH: ([0.5, INF], [-1.5, -INF]),
}


def _gradients(policy, fixed):
    N = torch.tensor([6.0, 6.0], requires_grad=True)
    D = torch.tensor([2.0, 0.0], requires_grad=True)
    decoded = decided(N, D, InferenceConfig(), fixed=fixed).decoded
    with gradient_policy(policy):
        return [g.tolist() for g in torch.autograd.grad(decoded.sum(), (N, D))]


@pytest.mark.parametrize("policy", GRADIENTS)
def test_the_policy_comes_from_the_context_or_is_fixed(policy):
    expected = list(GRADIENTS[policy])
    assert _gradients(policy, -1) == expected
    assert _gradients(GradientPolicy.REJECT, int(policy)) == expected


# N, D -> why
REASONS = [
    (3.0, 2.0, Status.ANSWER),
    (1.0, 1e-5, Status.ANSWER),  # in the gap
    (1.0, 9e-7, Status.POLE),
    (1.0, 0.0, Status.POLE),
    (0.0, -0.0, Status.INDETERMINATE),
    (1e308, 1e-5, Status.NO_VALUE),
    (NAN, 0.0, Status.INPUT),
    (1.0, INF, Status.INPUT),
]


@pytest.mark.parametrize("score", ["denominator", "angle"])
@pytest.mark.parametrize("kind", ["tensors", "arrays", "shared"])
def test_every_entry_has_a_reason(score, kind):
    N, D, expected = (list(x) for x in zip(*REASONS, strict=True))
    if score == "angle":  # for it a quotient that overflows is a pole
        expected[5] = Status.POLE
        N[1], D[1] = 1.0, 1e-3
        D[2] = 1e-9
    N, D = (
        torch.tensor([N, N], dtype=torch.float64).T,
        torch.tensor(D, dtype=torch.float64)[:, None],
    )
    if kind == "arrays":
        N, D = N.numpy(), D.numpy()
    if kind != "shared":
        D = D + 0 * np.ones(2) if kind == "arrays" else D.expand(-1, 2)
    result = strict_inference(N, D, InferenceConfig(score=score))
    decoded, bottom, _ = result  # three, as ever
    assert type(result.reasons) is type(decoded)
    assert result.reasons.tolist() == [[reason, reason] for reason in expected]
    assert ((result.reasons != Status.ANSWER) == bottom).all()


class Fragile(torch.nn.Module):
    def forward(self, x):
        return x[:, :1].log(), x[:, 1:]


X = torch.tensor([[2.0, 1.0], [NAN, 1.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.0]])


def test_a_module_tells_its_input_from_what_it_made_of_it():
    result = StrictModule(Fragile()).eval()(X)
    reasons = [Status.ANSWER, Status.INPUT, Status.FAULT, Status.POLE, Status.INDETERMINATE]
    assert result.reasons.flatten().tolist() == reasons


def test_reasons_that_a_graph_has_lost_are_refused(tmp_path):
    module = StrictModule(Fragile()).eval()
    torch.save(module(X), tmp_path / "result.pt")
    loaded = torch.load(tmp_path / "result.pt", weights_only=True)
    program = torch.export.export(module, (X,))
    torch.export.save(program, tmp_path / "module.pt2")
    exported = torch.export.load(tmp_path / "module.pt2").module()(X)
    for result in (loaded, exported, torch.compile(module, fullgraph=True, backend="eager")(X)):
        assert isinstance(result, StrictResult)
        assert torch.equal(result.bottom_mask, module(X).bottom_mask)
        with pytest.raises(NotSupportedError, match="reasons need N and D"):
            _ = result.reasons
