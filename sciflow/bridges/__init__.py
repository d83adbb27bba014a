"""Bridges to the files and tools of other communities; each needs its package only when used."""
