from tests.faults.tables import tried


def test_mutated_tables_and_options_are_read_or_refused():
    assert {outcome for _, outcome, _ in tried(150)} <= {"read", "refused"}
