"""Fitted models on disk: run folders."""

from zeroproof.export.run_folder import load_run, save_run
from zeroproof.inference.run import Run, TargetFrame, predict_rows

__all__ = ["Run", "TargetFrame", "load_run", "predict_rows", "save_run"]
