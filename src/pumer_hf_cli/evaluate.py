"""`pumer-hf evaluate`."""

import argparse

from .train import RecipeCommand


class Evaluate(RecipeCommand):
    """`pumer-hf evaluate`."""

    name = "evaluate"
    summary = "evaluate a trained model on a split of a recipe's data"
    example = "pumer-hf evaluate vqa --model outputs/digit-scenes/student"

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.recipes.evaluation import evaluate_recipe

        evaluate_recipe(f"{self.summary[0].upper()}{self.summary[1:]}.", [args.task, *args.arguments])
