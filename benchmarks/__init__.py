"""Programs that measure; none of them is in the wheel."""
