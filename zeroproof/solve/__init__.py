"""Fitting in closed form: the projective head as an extreme singular vector."""

from zeroproof.solve.path import RHOS, ReadoutPath, RhoChoice, choose_rho, readout_path
from zeroproof.solve.spectral import Readout, ReadoutOptions, spectral_readout, streamed_readout
from zeroproof.solve.tall_qr import TallQR

__all__ = [
    "RHOS",
    "Readout",
    "ReadoutOptions",
    "ReadoutPath",
    "RhoChoice",
    "TallQR",
    "choose_rho",
    "readout_path",
    "spectral_readout",
    "streamed_readout",
]
