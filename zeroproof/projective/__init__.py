"""Homogeneous tuples: lifting, decoding, gauge and angles."""

from zeroproof.projective.angle import (
    chordal_distance,
    cosine,
    cross,
    denominator_score,
    misalignment,
)
from zeroproof.projective.decoding import decode
from zeroproof.projective.tuples import Pair, encode, renormalize, target_scale

__all__ = [
    "Pair",
    "chordal_distance",
    "cosine",
    "cross",
    "decode",
    "denominator_score",
    "encode",
    "misalignment",
    "renormalize",
    "target_scale",
]
