"""The study: every method of token reduction, from the same teacher, compared at the same measured speed."""
