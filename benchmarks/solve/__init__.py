"""Benchmarks of the closed-form solver."""
