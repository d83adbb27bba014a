"""Continuous normalizing flows."""
