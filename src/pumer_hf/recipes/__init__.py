"""Recipes: their files, their stages, the record of a run, the evaluation and the cards."""
