"""Whole fits: from a table of numbers to a model that can be used."""

from zeroproof.estimators.trained import FitOptions, TrainedFit, fit_table

__all__ = ["FitOptions", "TrainedFit", "fit_table"]
