"""How well singular functions are solved: run `python -m benchmarks.solve.NAME`."""
