"""What a recipe runs: its file, its stages, their record, the evaluation and the cards."""
