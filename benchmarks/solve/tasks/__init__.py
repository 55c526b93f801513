"""The tasks of the table, one file for each kind of data."""
