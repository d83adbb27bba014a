"""Measurements against peers, side by side in one process: ``python -m benchmarks``."""
