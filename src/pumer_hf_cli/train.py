"""`pumer-hf train`, and the base class that it shares with `pumer-hf evaluate`."""

import argparse

from .choices import TASKS, in_words
from .command import Command


class RecipeCommand(Command):
    """A subcommand that runs a recipe. The flags after the task belong to the recipe."""

    user_errors = ()  # the recipe ends the program itself, with a message and a status for launchers

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("task", metavar="TASK", choices=TASKS, help=in_words(TASKS))
        parser.add_argument(
            "arguments",
            metavar="[RECIPE.yaml] [--flag value ...]",
            nargs=argparse.REMAINDER,
            help=f"`pumer-hf {self.name} {TASKS[0]} --help` lists the flags; each overrides a value of the recipe",
        )


class Train(RecipeCommand):
    """`pumer-hf train`."""

    name = "train"
    summary = "train a teacher, then a student that prunes and merges its tokens; without a recipe, on digit scenes"
    example = "pumer-hf train vqa --checkpoint dandelin/vilt-b32-mlm --train_file a.jsonl --validation_file b.jsonl"

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.recipes.runner import run_recipe

        run_recipe(args.task, args.arguments)
