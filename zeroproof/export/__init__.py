"""Models out of the session: run folders."""

from zeroproof.export.run_folder import Run, TargetFrame, load_run, predict_rows, save_run

__all__ = ["Run", "TargetFrame", "load_run", "predict_rows", "save_run"]
