"""One family of errors; each is also the builtin error that a caller would expect."""

__all__ = [
    "CheckpointError",
    "DamagedCheckpointError",
    "DataError",
    "MissingExtraError",
    "NotFittedError",
    "NotSupportedError",
    "RangeError",
    "RunFolderError",
    "ShapeError",
    "TrainingError",
    "ZeroProofError",
]


class ZeroProofError(Exception):
    """Base of every error raised on purpose by this package."""


class ShapeError(ZeroProofError, ValueError):
    """Tensors whose shapes do not belong together."""


class RangeError(ZeroProofError, ValueError):
    """A number, name or option outside what it may be."""


class DataError(ZeroProofError, ValueError):
    """A table or data set that cannot be used as asked; the sentence names the row or column."""


class RunFolderError(ZeroProofError, ValueError):
    """A folder that is not a run written by `zeroproof fit`, or that is damaged."""


class NotFittedError(ZeroProofError, ValueError, AttributeError):
    """A model was used before it was fitted."""


class NotSupportedError(ZeroProofError, TypeError):
    """Something that a value of this package does not do; the sentence says what does."""


class TrainingError(ZeroProofError, RuntimeError):
    """Training cannot go on; the sentence says what to change."""


class CheckpointError(ZeroProofError, RuntimeError):
    """A checkpoint that does not belong to this run, or comes from a newer version."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not as it was written; the one before it may be whole."""


class MissingExtraError(ZeroProofError, ImportError):
    """An optional dependency is absent; the sentence says what to install."""
