"""Neural canonical transformations."""
