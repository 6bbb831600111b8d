"""Trains several students of a recipe from one teacher, each with its own seed, and makes one report of them."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pumer_hf.hub.sources import public_words
from pumer_hf.recipes.parser import recipe_task
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.recipes.record import STAGES_NAME, differences, recorded
from pumer_hf.results import Command, Evaluation, Report, SeedRun, check_results_file

TAKEN = {"--output_dir", "--resume", "--seed"}
"""The flags of recipes that the command itself gives to each run."""
UNREPORTED = {"--output_dir", "--resume", "--report_to"}
"""The flags of runs that do not change their results. The report leaves them out."""
PER_SEED = {"seed", "output_dir"}
"""The training arguments that differ from seed to seed."""


def seeds_command(description: str, root: Path, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/seeds.py`.

    Args:
        description: the text of `--help`.
        root: the folder of the repository.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", type=Path, help="the recipe file")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the report of all seeds, JSON"
    )
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="a folder of models per seed")
    parser.add_argument(
        "--teacher", metavar="FOLDER", help="the teacher of all seeds; default: the first seed trains one"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="default: 0 to 4")
    args, flags = parser.parse_known_args(arguments)
    try:
        with exit_on_user_error():
            report = run_seeds(args, flags, root)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C. To go on, give the same command.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    print(*(f"seed {run.seed}: {run.student.main}, {run.speed:.2f}x" for run in report.seeds), sep="\n")
    print(f"Written to {args.output}. To render the tables of README.md: python benchmarks/render.py README.md")


def run_seeds(args: argparse.Namespace, flags: Sequence[str], root: Path) -> Report:
    """Run the seeds that are not done. Write the report about all of them, and return it."""
    script = root / "recipes" / f"train_{recipe_task(args.recipe).name}.py"
    folders = {seed: args.work / f"seed{seed}" for seed in args.seeds}
    if len(folders) < 2:
        raise ValueError(f"--seeds {' '.join(map(str, args.seeds))}: give at least two")
    if taken := sorted(TAKEN & {flag.partition("=")[0] for flag in flags}):
        raise ValueError(f"{taken[0]}: this command gives it to each run itself")
    check_results_file(args.output)
    first = folders[args.seeds[0]]
    done = [folder for folder in folders.values() if (folder / "results.json").is_file()]
    for folder in done:
        check_made_alike(done[0], folder)
    for seed, folder in folders.items():
        if (folder / "results.json").is_file():
            print(f"{folder / 'results.json'} is there already: this seed is not done again.")
            continue
        source = args.teacher or (None if folder == first else str(first / "teacher"))
        teacher = [] if source is None else ["--teacher", source]
        run_recipe_script([str(script), str(args.recipe), *seed_flags(folder, seed), *teacher, *flags])
        check_made_alike(first, folder)
    report = collect({seed: Report.load(folder / "results.json") for seed, folder in folders.items()})
    report.save(args.output)
    return report


def seed_flags(folder: Path, seed: int) -> list[str]:
    """Return the flags of the run with a seed. A run that was interrupted is continued."""
    resume = ["--resume", "true"] if folder.exists() else []
    return ["--output_dir", str(folder), "--seed", str(seed), *resume]


def check_made_alike(first: Path, other: Path) -> None:
    """Raise `ValueError` if the students of two seeds differ by more than the seed and the folder of the teacher.

    They differ if the recipe or a flag has changed since the first one was trained.
    """
    changed = differences(student_facts(first), student_facts(other))
    if changed:
        raise ValueError(
            f"{other} was made from another recipe or other flags than {first}, so they do not belong together: "
            f"{', '.join(changed)}. Remove one of the folders, or give another --work"
        )


def student_facts(folder: Path) -> dict[str, Any]:
    """Return the blocks of the recipe that the student of a seed was trained with, without the seed."""
    blocks = {name: recorded(folder / "student", name) for name in ("reduction", "data", "training")}
    if blocks["data"] is None:
        raise ValueError(f"{folder / STAGES_NAME} does not say what the student was made from: remove {folder}")
    training = {name: value for name, value in (blocks["training"] or {}).items() if name not in PER_SEED}
    return {**blocks, "training": training}


def run_recipe_script(words: Sequence[str]) -> None:
    """Launch a recipe script as README says, and raise `ValueError` if it fails."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *words]
    print("accelerate launch", *words, flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise ValueError(f"the run above ended with status {status}; the same command goes on with what is left")


def collect(runs: Mapping[int, Report]) -> Report:
    """Make one report of several runs with the same teacher.

    Args:
        runs: what each run measured, by seed; at least one.

    Returns:
        The report of the first run with these changes. The student's evaluation has the means over the seeds. The
        throughput is that of the run with the median speed. `seeds` has every run. The speeds of an elastic student
        are left out. Commands name folders of this machine by the last part of their paths, and have no flags that do
        not change the results.

    Raises:
        ValueError: the runs differ by more than the seed: in the teacher's results, the tokens per layer or the
            machine.
    """
    (first_seed, first), *others = runs.items()
    for seed, run in others:
        for name, value in shared_facts(run).items():
            if value != shared_facts(first)[name]:
                raise ValueError(f"seeds {first_seed} and {seed} differ in {name}: they do not belong together")
    seeds = [seed_run(seed, run) for seed, run in runs.items()]
    median = sorted(seeds, key=lambda run: run.speed)[len(seeds) // 2]
    return replace(
        first,
        evaluations={**first.evaluations, "student": Evaluation.mean([run.student for run in seeds])},
        cost=replace(first.cost, throughput=median.throughput),
        environment=replace(first.environment, command=reported_command(first.environment.command)),
        seeds=tuple(seeds),
        elastic=None,  # that of one seed
    )


def seed_run(seed: int, run: Report) -> SeedRun:
    """Return one run as a part of the report about all of them."""
    if run.cost.throughput is None:
        raise ValueError(f"seed {seed}: its results have no throughput")
    command = reported_command(run.environment.command)
    return SeedRun(seed, run.evaluations["student"], run.cost.throughput, command)


def reported_command(command: Command | None) -> Command | None:
    """Return the command of a run without the flags that do not change its results."""
    if command is None:
        return None
    return replace(command, arguments=tuple(public_words(command.without(UNREPORTED).arguments)))


def shared_facts(run: Report) -> dict[str, Any]:
    """Return the facts that are the same for all runs that differ only by the seed."""
    facts = {"the teacher's results": run.evaluations["teacher"], "the tokens per layer": run.cost.tokens_per_layer}
    return {**facts, "the machine": run.environment.machine_name}
