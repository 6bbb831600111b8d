"""`benchmarks/decoders.py`: the study of methods that need no training, in decoder models."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from pumer_hf.data.scenes.digits import SETTINGS
from pumer_hf.hub.sources import published_environment
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.results import Environment, check_results_file

from .decoder_results import DecoderReport, TeacherResults
from .decoders import DecoderBench, decoder_baselines, method_rows
from .second_question import second_question_rows


def decoders_command(description: str, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/decoders.py`.

    Args:
        description: the text of `--help`.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--teachers", nargs="+", default=[], metavar="FOLDER", help="models, one per seed")
    parser.add_argument("--seeds", type=int, nargs="+", help="the seeds of the models; default: 0 1 2 ...")
    parser.add_argument("--scorers", nargs="+", metavar="FOLDER", help="a scorer of lookahead for each model")
    parser.add_argument(
        "--second-question", action="store_true", help="measure choices that were made for another question"
    )
    parser.add_argument("--join", nargs="+", type=Path, metavar="FILE", help="results of single models to join")
    parser.add_argument("--split", default="test", help="the split of the questions; default: test")
    parser.add_argument("--questions", type=int, default=2000, help="how many questions; default: 2000")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the results, JSON")
    args = parser.parse_args(arguments)
    with exit_on_user_error():
        check_results_file(args.output)
        if bool(args.teachers) == bool(args.join):
            raise ValueError("--teachers, --join: give folders of models, or files of results")
        report = DecoderReport.joined(list(map(DecoderReport.load, args.join))) if args.join else measured(args)
        report.save(args.output)


def measured(args: argparse.Namespace) -> DecoderReport:
    """Measure all methods with each model."""
    seeds = args.seeds or list(range(len(args.teachers)))
    scorers = args.scorers or [None] * len(args.teachers)
    if not len(seeds) == len(scorers) == len(args.teachers):
        raise ValueError(f"--seeds, --scorers: give one for each of {len(args.teachers)} models")
    results = []
    for folder, seed, scorer in zip(args.teachers, seeds, scorers, strict=True):
        bench = DecoderBench.load(folder, args.setting, args.split, args.questions, args.device)
        rows = tuple((second_question_rows if args.second_question else method_rows)(bench, scorer))
        results.append(TeacherResults(seed, bench.side**2, decoder_baselines(bench), rows))
    environment = published_environment(Environment.current())
    return DecoderReport(args.setting, args.split, len(bench.rows), tuple(results), environment)
