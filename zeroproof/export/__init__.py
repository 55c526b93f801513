"""Fitted models on disk: run folders."""

from zeroproof.export.run_folder import Run, TargetFrame, load_run, predict_rows, save_run

__all__ = ["Run", "TargetFrame", "load_run", "predict_rows", "save_run"]
