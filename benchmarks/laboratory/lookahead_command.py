"""`benchmarks/lookahead.py`: the study of `lookahead` behind one teacher."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from pumer_hf.hub.sources import published_environment
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.reducers.lookahead import LookaheadReducer
from pumer_hf.results import Environment, check_results_file

from .lookahead import CARRIES, LEARNED, ORACLES, Bench, baselines, carry_rows, main_rows, train_scorer
from .lookahead_mass import MassReport, mass_report
from .lookahead_results import LookaheadReport

RECIPES = {
    "plain": "vilt/digit_scenes/pumer.yaml",
    "cluttered": "vilt/digit_scenes_cluttered/pumer.yaml",
    "easy_vqa": "vilt/easy_vqa/pumer.yaml",
    "meter": "meter/digit_scenes/pumer.yaml",
}
"""The recipe whose `data` block a setting has."""


def lookahead_command(description: str, root: Path, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/lookahead.py`.

    Args:
        description: the text of `--help`.
        root: the folder of the repository.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("setting", choices=RECIPES)
    parser.add_argument("--teacher", nargs="+", required=True, help="the folder of the frozen model")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the results, JSON")
    parser.add_argument("--carry", action="store_true", help="scorers that were trained on other data")
    parser.add_argument("--mass", action="store_true", help="keep_mass, with a teacher for each seed")
    parser.add_argument("--again", action="store_true", help="measure all in FILE again but the accuracy of scorers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=int, default=2000, help="steps to predict the attention; default: 2000")
    parser.add_argument("--answer-steps", type=int, default=600, help="steps to keep the answers; default: 600")
    parser.add_argument("--part", default="{}", metavar="JSON", help="other fields of the part lookahead")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the speeds are measured; default: 60")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("outputs/lookahead"),
        help="a folder for the scorers; those in it are not trained again, so the same command goes on",
    )
    args, flags = parser.parse_known_args(arguments)
    with exit_on_user_error():
        check_results_file(args.output)
        if len(args.teacher) != (len(args.seeds) if args.mass else 1):
            raise ValueError(f"--teacher {' '.join(args.teacher)}: give one, or with --mass one for each of --seeds")
        report = run_mass(args, flags, root) if args.mass else run(args, flags, root)
        report.save(args.output)
    print(f"Written to {args.output}. To render the tables: python benchmarks/render.py docs/lookahead.md")


def run_mass(args: argparse.Namespace, flags: Sequence[str], root: Path) -> MassReport:
    """Train a scorer behind each teacher, and measure `keep_mass`."""
    recipe = root / "recipes" / RECIPES[args.setting]
    benches = {
        seed: Bench.load(teacher, recipe, flags) for seed, teacher in zip(args.seeds, args.teacher, strict=True)
    }
    training = {"steps": (args.steps, args.answer_steps), "fields": json.loads(args.part)}
    report = mass_report(args.setting, benches, training, args.work / args.setting / "keep mass", args.seconds)
    return replace(report, environment=published_environment(Environment.current()))


def run(args: argparse.Namespace, flags: Sequence[str], root: Path) -> LookaheadReport:
    """Train the scorers, and measure them."""
    recipe = root / "recipes" / RECIPES[args.setting]
    part: dict[str, Any] = json.loads(args.part)
    steps = args.steps, args.answer_steps

    def trained(data: Dataset, steps: tuple[int, int], name: str = "all questions") -> dict[int, LookaheadReducer]:
        folder = args.work / args.setting / name.replace("/", " ")
        return {seed: train_scorer(bench, data, seed, steps, folder, part) for seed in args.seeds}

    def load(more: Sequence[str] = ()) -> Bench:
        return Bench.load(args.teacher[0], recipe, [*flags, *more])

    bench = load()
    facts = baselines(bench)
    environment = published_environment(Environment.current())
    if args.again:
        known = replace(LookaheadReport.load(args.output), baselines=facts, environment=environment)
        if args.carry:  # its rows have no speeds
            return known
        learned = [row for row in known.rows if row.name in (*LEARNED, *ORACLES)]
        rows = main_rows(bench, trained(bench.data.train, steps), args.seconds, learned)
        return replace(known, rows=tuple(rows))
    rows = []
    if args.carry:
        for carry in CARRIES[args.setting]:
            scorers = trained(carry.rows(bench, load), steps if carry.trained else (0, 0), carry.name)
            rows += carry_rows(bench, carry.name, scorers)
    else:
        scorers = trained(bench.data.train, steps)
        rows = main_rows(bench, scorers, args.seconds)
    layer = next(iter(scorers.values())).config.target_layer
    assert layer is not None, "`train_scorer` has chosen it"
    return LookaheadReport(args.setting, facts, layer, tuple(rows), len(bench.data.test), environment)
