"""The study: every method of token reduction, trained from the same teacher and compared at the same measured speed."""
