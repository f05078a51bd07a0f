"""From the names of models to their files."""
