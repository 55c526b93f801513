import pytest

from zeroproof import errors

BUILTINS = {
    "ShapeError": (ValueError,),
    "RangeError": (ValueError,),
    "DataError": (ValueError,),
    "RunFolderError": (ValueError,),
    "CheckpointError": (RuntimeError,),
    "DamagedCheckpointError": (RuntimeError,),
    "NotFittedError": (ValueError, AttributeError),
    "NotSupportedError": (TypeError,),
    "TrainingError": (RuntimeError,),
    "MissingExtraError": (ImportError,),
}


def test_the_table_names_every_error():
    assert {*BUILTINS, "ZeroProofError"} == set(errors.__all__)


@pytest.mark.parametrize("name", BUILTINS)
def test_an_error_is_one_of_the_family_and_the_builtin_a_caller_expects(name):
    error = getattr(errors, name)
    assert issubclass(error, (errors.ZeroProofError,))
    for builtin in BUILTINS[name]:
        assert issubclass(error, builtin)
    assert str(error("a sentence")) == "a sentence"
