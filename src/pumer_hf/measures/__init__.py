"""Measures of how well the tokens that a model keeps explain its answers."""
