import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective import (
    chordal_distance,
    cosine,
    denominator_score,
    misalignment,
)
from zeroproof.projective.angle import norm
from zeroproof.projective.tuples import renormalize

coordinates = st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-3)
points = st.tuples(coordinates, coordinates).filter(any)
gauges = st.sampled_from([-1e12, -2.0, 1e-12, 0.3, 1e12])


def tensors(*values, dtype=torch.float64):
    return [torch.tensor([x], dtype=dtype) for x in values]


@given(points, points, gauges)
def test_chordal_distance_is_symmetric_bounded_and_free_of_gauge(p, q, gauge):
    N, D, Y_n, Y_d = tensors(*p, *q)
    distance = chordal_distance(N, D, Y_n, Y_d)
    assert 0 <= distance <= 1
    torch.testing.assert_close(chordal_distance(Y_n, Y_d, N, D), distance, rtol=1e-9, atol=1e-12)
    moved = chordal_distance(gauge * N, gauge * D, Y_n, Y_d)
    torch.testing.assert_close(moved, distance, rtol=1e-9, atol=1e-12)


@given(points, points, points)
def test_chordal_distance_obeys_the_triangle_inequality(p, q, r):
    p, q, r = (tensors(*x) for x in (p, q, r))
    assert chordal_distance(*p, *r) <= (chordal_distance(*p, *q) + chordal_distance(*q, *r) + 1e-12)


@given(points)
def test_a_point_has_no_distance_from_itself(p):
    N, D = tensors(*p)
    assert chordal_distance(N, D, N, D) == 0
    torch.testing.assert_close(misalignment(N, D, N, D), torch.zeros_like(N))


@given(points, points)
def test_sine_and_cosine_belong_to_one_angle(p, q):
    p, q = tensors(*p), tensors(*q)
    sine, c, turned = chordal_distance(*p, *q), cosine(*p, *q), misalignment(*p, *q)
    assert -1 <= c <= 1
    torch.testing.assert_close(sine**2 + c**2, torch.ones_like(c))
    torch.testing.assert_close(turned, 1 - c)


@pytest.mark.parametrize(
    ("p", "q", "distance", "cos"),
    [
        ((1, 0), (-1, 0), 0.0, -1.0),
        ((1, 0), (0, 1), 1.0, 0.0),
        ((1, 1), (1, 0), 0.5**0.5, 0.5**0.5),
        ((0, 0), (1, 0), 1.0, 0.0),
        ((2, 1), (0, 0), 1.0, 0.0),
        ((0, 0), (0, 0), 1.0, 0.0),
    ],
)
def test_values(p, q, distance, cos):
    p, q = tensors(*map(float, p)), tensors(*map(float, q))
    torch.testing.assert_close(chordal_distance(*p, *q).item(), distance)
    torch.testing.assert_close(cosine(*p, *q).item(), cos)
    torch.testing.assert_close(misalignment(*p, *q).item(), 1 - cos)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("function", [chordal_distance, cosine, misalignment])
def test_what_is_not_finite_has_no_angle(function, which, bad):
    values = tensors(1.0, 1.0, 1.0, 0.0)
    values[which] = torch.full_like(values[which], bad)
    assert function(*values).isnan()


MAGNITUDES = torch.tensor([1e-20, 1e-10, 1.0, 1e10, 1e20])


@pytest.mark.parametrize("imaginary", [0, -0.5j], ids=["real", "complex"])
def test_extreme_magnitudes_are_right_in_float32(imaginary):
    grid = torch.cartesian_prod(*[MAGNITUDES] * 4).T
    N, D, Y_n, Y_d = (x * (sign + imaginary) for x, sign in zip(grid, (1, -1, 2, 3), strict=True))
    wide = [x.to(torch.complex128 if imaginary else torch.float64) for x in (N, D, Y_n, Y_d)]
    n, d, y_n, y_d = wide
    size = (n.abs() ** 2 + d.abs() ** 2).sqrt() * (y_n.abs() ** 2 + y_d.abs() ** 2).sqrt()
    distance = (n * y_d - d * y_n).abs() / size
    cos = (n * y_n.conj() + d * y_d.conj()).real / size
    for got, expected in (
        (chordal_distance(N, D, Y_n, Y_d), distance),
        (cosine(N, D, Y_n, Y_d), cos),
        (misalignment(N, D, Y_n, Y_d), 1 - cos),
    ):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-6)
    score = d.abs() / ((n / 3).abs() ** 2 + d.abs() ** 2).sqrt()
    got = denominator_score(N, D, "angle", scale=3.0)
    torch.testing.assert_close(got, score.float(), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    big, one = torch.tensor([6e4], dtype=dtype), torch.ones(1, dtype=dtype)
    zero = torch.zeros(1, dtype=dtype)
    for got in (
        chordal_distance(big, big, one, zero),
        cosine(big, big, one, zero),
        denominator_score(big, big, "angle"),
    ):
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(0.5**0.5)


def test_misalignment_keeps_its_digits_and_has_no_gradient_at_the_origin():
    angle = torch.tensor([1e-6])
    turned = misalignment(angle.cos(), angle.sin(), torch.ones(1), torch.zeros(1))
    assert turned.item() == pytest.approx(5e-13, rel=1e-5)
    N, D = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    misalignment(N, D, torch.ones(1), torch.zeros(1)).backward()
    assert (N.grad, D.grad) == (0, 0)


def test_norm_is_one_at_the_origin():
    assert norm(torch.zeros(1), torch.zeros(1)) == 1
    assert norm(torch.tensor([3.0]), torch.tensor([4.0])) == 5
    assert norm(torch.tensor([3j]), torch.tensor([4.0 + 0j])) == 5


@given(points, gauges, st.sampled_from([1e-3, 1.0, 250.0]))
def test_the_angle_score_is_free_of_gauge_and_units(p, gauge, unit):
    N, D = tensors(*p)
    score = denominator_score(N, D, "angle", scale=2.0)
    assert 0 <= score <= 1 + 1e-12
    moved = denominator_score(gauge * N, gauge * D, "angle", scale=2.0)
    units = denominator_score(unit * N, D, "angle", scale=2.0 * unit)
    torch.testing.assert_close(moved, score)
    torch.testing.assert_close(units, score)


@given(st.floats(-1e6, 1e6), st.sampled_from([0.1, 1.0, 30.0]))
def test_the_angle_score_is_a_function_of_the_value(y, scale):
    y, one = tensors(y, 1.0)
    expected = 1 / (1 + (y / scale) ** 2).sqrt()
    torch.testing.assert_close(denominator_score(y, one, "angle", scale), expected)


def test_the_guides_score_depends_on_the_gauge_and_the_angle_does_not():
    N, D = torch.tensor([1.0, 1e-4]), torch.tensor([1e-3, 1e-7])  # 1000 twice
    assert denominator_score(N, D)[0] / denominator_score(N, D)[1] > 1e3
    angle = denominator_score(N, D, "angle")
    torch.testing.assert_close(angle[0], angle[1])


@pytest.mark.parametrize("score", ["denominator", "angle"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_at_zero_the_score_can_be_led_away(score, dtype):
    N, D = torch.tensor([2.0], dtype=dtype), torch.zeros(1, dtype=dtype, requires_grad=True)
    value = denominator_score(N, D, score)
    assert value == 0
    value.backward()
    expected = 1.0 if score == "denominator" else 0.5
    assert D.grad.real.item() == pytest.approx(expected)


@pytest.mark.parametrize("score", ["denominator", "angle"])
def test_a_shared_denominator_has_a_score_for_every_output(score):
    N, D = torch.randn(4, 3), torch.randn(4, 1)
    torch.testing.assert_close(
        denominator_score(N, D, score), denominator_score(N, D.repeat(1, 3), score)
    )


def test_the_origin_has_score_zero_without_nan():
    N, D = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    score = denominator_score(N, D, "angle")
    assert score == 0
    score.backward()
    assert torch.isfinite(N.grad)
    assert torch.isfinite(D.grad)


@pytest.mark.parametrize("chunk", [7, 10**6, None])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("shape", [(-1,), (5, -1)], ids=str)
def test_the_angle_score_at_the_edges_of_the_range(monkeypatch, chunk, scale, shape):
    if chunk is None:  # the plain operations of all other modes
        monkeypatch.setattr("zeroproof.projective.angle.divisible", lambda *_: False)
    monkeypatch.setattr("zeroproof.projective.tuples.CHUNK", chunk)
    edges = [0.0, 1e-30, 1e-18, 1.0, 1e15, 1e30]
    edges = [*edges, *(-x for x in edges[:-1]), math.inf, math.nan, *torch.randn(7).tolist()]
    N, D = torch.tensor(list(itertools.product(edges, edges))).T.reshape(2, *shape)
    for d in (D, D[..., :1]) if N.ndim > 1 else (D,):
        n, wide = N.double() / scale, d.double().expand(N.shape)
        expected = wide.abs() / torch.where((n == 0) & (wide == 0), 1, torch.hypot(n, wide))
        score = denominator_score(N, d, "angle", scale)
        counts = torch.isfinite(n) & torch.isfinite(wide)
        assert score[~counts].isnan().all()
        torch.testing.assert_close(score[counts], expected[counts].float(), rtol=6e-7, atol=1e-42)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("scale", [1e-200, 1e-50, 1e-30, 1e20, 1e36, 1e50, 1e200])
def test_a_scale_beyond_float32_is_a_scale(monkeypatch, scale, dtype, quick):
    if not quick:
        monkeypatch.setattr("zeroproof.projective.angle.divisible", lambda *_: False)
    edges = [0.0, 1e-37, 1e-15, 1.0, -2.0, 1e20, 3e38]
    N, D = torch.tensor(list(itertools.product(edges, edges))[1:], dtype=dtype).T
    expected = [
        abs(d) / math.hypot(abs(n) / scale**0.5, abs(d) * scale**0.5) * scale**0.5
        for n, d in zip(N.tolist(), D.tolist(), strict=True)
    ]
    score = denominator_score(N, D.requires_grad_(), "angle", scale)
    assert score.dtype == N.real.dtype
    wanted = torch.tensor(expected, dtype=score.dtype)
    torch.testing.assert_close(score, wanted, rtol=1e-6, atol=1e-42)
    assert torch.equal(denominator_score(N, D.detach(), "angle", scale), score)


def test_a_scale_beyond_float32_in_a_compiled_graph():
    function = torch.compile(denominator_score, fullgraph=True, backend="aot_eager")
    for dtype in (torch.float32, torch.complex64):
        N, D = torch.tensor([[3e38], [1e-15]], dtype=dtype)
        assert torch.equal(function(N, D, "angle", 1e50), denominator_score(N, D, "angle", 1e50))


def test_scores_and_sizes_are_where_the_tuples_are():
    N, D = torch.randn(2, 100)
    expected = denominator_score(N, D, "angle"), *renormalize(N, D)
    with torch.device("meta"):
        found = denominator_score(N, D, "angle"), *renormalize(N, D)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("function", [chordal_distance, cosine, misalignment])
@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((3,), (3, 1), (3,), (3,)), "N and D must have equal shapes"),
        (((3,), (3,), (3, 1), (3,)), "Y_n and Y_d must have equal shapes"),
        (((3,), (3,), (3, 1), (3, 1)), r"Y_n must have the shape of N, \(3,\), got \(3, 1\)"),
    ],
)
def test_shapes_are_checked(function, shapes, match):
    with pytest.raises(ShapeError, match=match):
        function(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"score": "sine"}, "score must be one of 'denominator', 'angle', got 'sine'"),
        ({"scale": -1.0}, "scale must be a finite number above 0, got -1.0"),
        ({"scale": math.inf}, "scale must be a finite number above 0, got inf"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        denominator_score(torch.ones(1), torch.ones(1), **options)
