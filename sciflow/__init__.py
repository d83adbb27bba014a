"""sciflow: learn how physical systems move and how they are distributed."""

__version__ = "0.1.0"
