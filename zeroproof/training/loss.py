"""The combined objective, under the import path of the training guide; see `losses/total.py`."""

from zeroproof.losses.total import SCMTrainingLoss

__all__ = ["SCMTrainingLoss"]
