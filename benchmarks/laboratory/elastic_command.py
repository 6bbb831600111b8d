"""`benchmarks/elastic.py`: the study of elastic students."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pumer_hf.folders import write_json
from pumer_hf.hub.sources import published_environment
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.reducers.lookahead import LookaheadReducer
from pumer_hf.results import Environment, check_results_file

from .elastic import TARGETS, VQA, find, find_schedules, lookahead_options, measure_rows, run_seed
from .elastic_results import ElasticReport
from .lookahead import Bench, train_scorer
from .lookahead_command import RECIPES

SETTINGS = ("plain", "cluttered")


def elastic_command(description: str, root: Path, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/elastic.py`.

    Args:
        description: the text of `--help`.
        root: the folder of the repository.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--teacher", required=True, nargs="+", help="the folder of a teacher for each seed, from 0 on")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the results, JSON")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the speeds are measured; default: 60")
    parser.add_argument(
        "--scorer-steps",
        type=int,
        nargs=2,
        default=(2000, 600),
        help="steps of lookahead's scorer: to predict the attention, and to keep the answers; default: 2000 600",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("outputs/elastic"),
        help="a folder for students and scorers; those in it are not trained again, so the same command goes on",
    )
    args, flags = parser.parse_known_args(arguments)
    with exit_on_user_error():
        check_results_file(args.output)
        report = run(args, flags, root)
        report.save(args.output)
    print(f"Written to {args.output}. To render the tables: python benchmarks/render.py docs/elastic.md")


def run(args: argparse.Namespace, flags: Sequence[str], root: Path) -> ElasticReport:
    """Train the students and scorers, and measure them."""
    recipe_file, work = root / "recipes" / RECIPES[args.setting], args.work / args.setting
    recipe = parse_recipe(VQA, recipe_file, [str(recipe_file), *flags])
    assert isinstance(recipe.reduction, dict), "the recipe has one part"
    benches = [Bench.load(teacher, recipe_file, flags) for teacher in args.teacher]
    steps = args.scorer_steps[0], args.scorer_steps[1]
    scorers = [
        train_scorer(bench, bench.data.train, seed, steps, work / f"seed{seed}" / "scorer", {})
        for seed, bench in enumerate(benches)
    ]
    schedules, kept = known_speeds(benches[0], scorers[0], recipe.reduction, work / "speeds.json", args.seconds)
    rows = measure_rows(benches[0], scorers[0], schedules, kept, args.seconds)
    seeds = []
    for seed, (bench, scorer, teacher) in enumerate(zip(benches, scorers, args.teacher, strict=True)):
        own = [*flags, "--teacher", teacher, "--seed", str(seed)]
        seeds.append(run_seed(bench, recipe_file, rows, scorer, work / f"seed{seed}", own))
        print(f"seed {seed}: {seeds[-1]}", flush=True)
    return ElasticReport(
        args.setting,
        recipe.training.max_steps,
        len(benches[0].data.test),
        tuple(rows),
        tuple(seeds),
        published_environment(Environment.current()),
    )


def known_speeds(
    bench: Bench, scorer: LookaheadReducer, schedule: dict[str, Any], path: Path, seconds: float
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the schedule of each speed, and how many patches `lookahead` keeps there. They are found once.

    Args:
        bench: a teacher. Its weights have no influence.
        scorer: a scorer behind it.
        schedule: the schedule of the recipe.
        path: the file that keeps them.
        seconds: how long to measure each time.
    """
    if not path.is_file():
        found = find_schedules(bench, schedule, seconds)
        kept = find(bench, lookahead_options(bench, scorer), TARGETS, seconds)
        write_json(path, {"schedules": found, "kept": kept})
    known = json.loads(path.read_text(encoding="utf-8"))
    return known["schedules"], known["kept"]
