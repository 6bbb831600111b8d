"""`pumer-hf train-scorer`."""

import argparse
from dataclasses import fields
from typing import Any

from .choices import DIVERSITIES, FORMS, SCORER_SITES
from .command import Command


class TrainScorer(Command):
    """`pumer-hf train-scorer`. Its flags may be written with `-` or with `_`."""

    name = "train-scorer"
    summary = "train the scorer of lookahead, which chooses image tokens before the first layer of a frozen model"
    example = "pumer-hf train-scorer outputs/digit-scenes/teacher --data digit_scenes --out outputs/scorer"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        def add(name: str, **options: Any) -> None:
            names = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
            parser.add_argument(*names, dest=name.replace("-", "_"), **options)

        parser.add_argument("model", metavar="MODEL", help="a folder or Hub id of a model; it does not change")
        add(
            "data",
            required=True,
            metavar="DATA",
            help="images with texts, no answers: a .jsonl or .csv file, a folder, a Hub data set, or digit_scenes; "
            "chats (a column `messages`) for a decoder",
        )
        add("image-column", default="image", metavar="NAME", help="column of the images; default: %(default)s")
        add("text-column", metavar="NAME", help="column of the texts; default: messages, text, question, ...")
        add("split", default="train", metavar="NAME", help="split of a data set; default: %(default)s")
        add("max-examples", type=int, metavar="N", help="examples to train on; default: all")
        add("eval-examples", type=int, default=500, metavar="N", help="examples to hold out; default: %(default)s")
        add("out", metavar="FOLDER", help="folder of the scorer; default: outputs/NAME-lookahead")
        add("site", choices=SCORER_SITES, default="inputs", help="where to choose; default: %(default)s")
        add("layers", type=int, nargs=1, metavar="K", help="with --site tower: the layer of the image tower")
        add(
            "target-layer",
            default="auto",
            metavar="auto|K|all",
            help="layer whose attention to predict, or all; default: what keeps most answers",
        )
        add("form", choices=FORMS, default="gated", help="network of the scorer; default: %(default)s")
        add("rank", type=int, default=64, metavar="N", help="width of the scorer; default: %(default)s")
        add("diversity", choices=DIVERSITIES, default="dpp", help="how kept patches differ; default: %(default)s")
        add(
            "p",
            type=float,
            default=0.25,
            metavar="P",
            help="exponent of the predicted attention; default: %(default)s",
        )
        add("steps", type=int, default=2000, metavar="N", help="steps to predict the attention; default: %(default)s")
        add("answer-steps", type=int, default=600, metavar="N", help="then, steps to keep the answers; default: 600")
        add("batch-size", type=int, default=64, metavar="N", help="default: %(default)s")
        add("learning-rate", type=float, default=2e-3, metavar="R", help="default: %(default)s")
        add("seed", type=int, default=0, metavar="N", help="default: %(default)s")
        add(
            "training",
            default="{}",
            metavar="JSON",
            help='other fields of ScorerTrainingArguments, such as {"bf16": true}; JSON, or a file with it',
        )
        add("resume", action="store_true", help="continue an interrupted training in --out")

    def check(self, args: argparse.Namespace) -> None:
        if (args.site == "tower") != (args.layers is not None):
            raise ValueError("--layers names the layer of the image tower: give it with --site tower, and only then")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.reading import parse_json
        from pumer_hf.recipes.train_scorer import ScorerOptions, run_train_scorer

        values = {item.name: getattr(args, item.name) for item in fields(ScorerOptions)}
        run_train_scorer(ScorerOptions(**{**values, "training": parse_json(args.training, "--training")}))
