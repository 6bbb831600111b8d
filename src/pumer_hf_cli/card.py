"""`pumer-hf card`."""

import argparse
from pathlib import Path
from typing import Any

from .command import Command


class Card(Command):
    """`pumer-hf card`."""

    name = "card"
    summary = "render model cards: README.md from the facts in results.json, which a recipe leaves in the same folder"
    example = "pumer-hf card outputs/digit-scenes/student"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "folders", metavar="FOLDER", nargs="+", type=Path, help="folder of a model, a scorer or a card"
        )
        parser.add_argument(
            "--recipe",
            metavar="YAML",
            type=Path,
            help="make results.json first, from a recipe; for a folder of recipes, a card for each pumer.yaml in it",
        )
        parser.add_argument(
            "--results",
            metavar="JSON",
            type=Path,
            help="results.json of the recipe's run; with a folder of recipes, a folder of <task>_<backbone>.json",
        )
        parser.add_argument("--base-model", metavar="ID", help="the model on the Hub from which FOLDER was made")
        parser.add_argument(
            "--bench",
            metavar="JSON",
            type=Path,
            help="what pumer-hf bench FOLDER -o JSON wrote about a decoder",
        )

    def check(self, args: argparse.Namespace) -> None:
        if args.recipe is None and args.results is not None:
            raise ValueError("--results needs --recipe, the recipe of that run")
        if args.recipe is not None and len(args.folders) > 1:
            raise ValueError("--recipe is for one FOLDER")
        for name in ("base_model", "bench"):
            if getattr(args, name) is not None and (args.recipe is not None or len(args.folders) > 1):
                raise ValueError(f"--{name.replace('_', '-')} is for one FOLDER, without --recipe")

    def run(self, args: argparse.Namespace) -> None:
        from dataclasses import replace

        from pumer_hf.bench.decoder_report import DecoderReport
        from pumer_hf.hub.card import FACTS_NAME, PuMerCard
        from pumer_hf.hub.scorer import is_scorer, save_scorer_card

        facts: dict[str, Any] = {} if args.base_model is None else {"base_model": args.base_model}
        if args.bench is not None:
            facts["bench"] = DecoderReport.load(args.bench)

        written = args.folders
        if args.recipe is not None:
            from pumer_hf.recipes.cards import recipe_file_card, write_recipe_cards

            if args.recipe.is_dir():
                written = write_recipe_cards(args.folders[0], args.recipe, args.results)
            else:
                recipe_file_card(args.recipe, args.results).save(args.folders[0])
        else:
            for folder in args.folders:
                if is_scorer(folder):
                    if facts:
                        raise ValueError(f"--base-model, --bench: {folder} is a scorer, whose own files say this")
                    save_scorer_card(folder)
                    continue
                known = (folder / FACTS_NAME).is_file() or not (folder / "config.json").is_file()
                card = PuMerCard.load(folder) if known else PuMerCard.from_checkpoint(folder)
                replace(card, **facts).save(folder)
        for folder in written:
            print(f"Written to {folder / 'README.md'}")
