"""`benchmarks/vlm.py`: pretrained decoder models with fewer image tokens, on public sets."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from tqdm.auto import tqdm

from pumer_hf.folders import check_writable, write_json
from pumer_hf.models.decoder_loading import decoder_of_config
from pumer_hf.models.loading import naming, saved_config
from pumer_hf.recipes.program import exit_on_user_error, leaving_group

from . import store
from .command import MARKS
from .shards import shard_of
from .vlm_cells import CellError, CellRunner, check_settings, in_all, key_of
from .vlm_model import VlmModel
from .vlm_results import VlmSettings
from .vlm_rows import Budget, VlmRow, budgets_of, chosen_rows, rows_of
from .vlm_scores import SCORES
from .vlm_sets import HUB_USER, SETS, Questions, load_questions, read_own_questions
from .vlm_tables import vlm_section

KEEPS = (0.5, 0.33, 0.11)
OWN_TOKENS = 16
"""The longest answer to a question of one's own file, in tokens."""


class Work(NamedTuple):
    """A cell to run."""

    key: str
    set: str
    row: VlmRow
    budget: Budget


def vlm_command(description: str, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/vlm.py`.

    Args:
        description: the text of `--help`.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    args = build_parser(description).parse_args(arguments)
    with exit_on_user_error(), leaving_group():
        check_writable(args.output, "--output")
        if not args.render:
            work = work_list(args)
            if args.list:
                print(*(f"{MARKS[state(args.output, one)]:12}  {one.key}" for one in work), sep="\n")
                return
            run(args, work)
        if PartialState().is_main_process:
            path = args.output / "README.md"
            path.write_text(f"# Pretrained models on public sets\n\n{vlm_section(args.output)}", encoding="utf-8")
            print(f"The tables are in {path}")


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser with the flags of the comparison."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("model", nargs="?", help="the id of a model on the Hub, or a folder")
    add("--sets", nargs="*", metavar="SET", help=f"public sets: {', '.join(SETS)}; default: all, without --file none")
    add("--file", type=Path, nargs="+", default=[], metavar="FILE.jsonl", help="questions of your own, with images")
    add("--metric", choices=SCORES, default="exact", help="how answers to --file are scored; default: exact")
    add("--methods", nargs="+", metavar="METHOD", help="rows, such as inputs_pumer; default: all (see --list)")
    add(
        "--keep",
        type=float,
        nargs="*",
        metavar="PART",
        help="parts of the image tokens; default: 0.5 0.33 0.11, with --speed none",
    )
    add("--speed", type=float, nargs="*", default=[], metavar="TIMES", help="measured speeds of the prefill, as 1.5")
    add("--scorer", metavar="FOLDER", help="a scorer of `pumer-hf train-scorer`, which adds the rows of lookahead")
    add("--limit", type=int, metavar="N", help="questions of each set, drawn by --seed; default: all")
    add("--seed", type=int, default=0, help="of the order of the questions; default: 0")
    add("--batch-size", type=int, default=8, help="questions at a time; default: 8")
    add("--max-new-tokens", type=int, help="the longest answer; default: 16, 32 for docvqa")
    add("--draws", type=int, default=1, help="how often `random` is measured; default: 1")
    add("--dtype", default="auto", help="precision, such as bfloat16; default: that of the checkpoint")
    add("--device", help="such as cuda:0, or auto for all GPUs; default: a GPU for each process, else the CPU")
    add("--seconds", type=float, default=5.0, help="the least time of a measurement of the prefill; default: 5")
    add("--hub-user", default=HUB_USER, help=f"the owner of the public sets, or a folder; default: {HUB_USER}")
    add("--only", metavar="PATTERN", help="cells whose key matches, such as '*-gqa-*'")
    add("--shard", default="1/1", metavar="I/N", help="the part of the methods for machine I of N")
    add("--retry-failed", action="store_true", help="run cells again that failed")
    add("--list", action="store_true", help="list the cells with their state, and end")
    add("--render", action="store_true", help="only write the tables of all cells in the folder")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a file for each cell, and the tables")
    return parser


def work_list(args: argparse.Namespace) -> list[Work]:
    """Return the cells of this machine, set by set. The model is not loaded for it.

    Raises:
        ValueError: a flag is wrong, or the model cannot be reduced.
    """
    if args.model is None:
        raise ValueError("MODEL: give the id of a decoder model on the Hub, or a folder; or --render")
    check_flags(args)
    family = decoder_of_config(saved_config(args.model), args.model)
    with naming(repr(args.model), args.model, "model"):
        config = family.config_class.from_pretrained(args.model)
    chosen = chosen_rows(rows_of(family, config, args.scorer), args.methods)
    rows = shard_of(chosen, args.shard, owner=lambda row: row.key)
    keeps = args.keep if args.keep is not None else [] if args.speed else KEEPS
    work = [
        Work(key_of(model_name(args.model), name, row, budget), name, row, budget)
        for name in set_names(args)
        for row in rows
        for budget in budgets_of(row, keeps, args.speed)
    ]
    found = [one for one in work if args.only is None or fnmatch(one.key, args.only)]
    if not found:
        raise ValueError(f"--only {args.only}, --shard {args.shard}: no cell is left: see --list without them")
    return found


def check_flags(args: argparse.Namespace) -> None:
    """Raise `ValueError` if a flag has a value that cannot be used."""
    for keep in args.keep or ():
        if not 0 < keep < 1:
            raise ValueError(f"--keep {keep}: a part of the image tokens is above 0 and below 1")
    for speed in args.speed:
        if not speed > 1:
            raise ValueError(f"--speed {speed}: give more than 1, the speed of the unreduced model")
    for name in ("limit", "batch_size", "max_new_tokens", "draws"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1")


def set_names(args: argparse.Namespace) -> list[str]:
    """Return the names of the sets, those of own files last.

    Raises:
        ValueError: there is no such set, or two have the same name.
    """
    for name in args.sets or ():
        if name not in SETS:
            raise ValueError(f"--sets {name}: choose from {', '.join(SETS)}, or give a file of your own with --file")
    stems = [file.stem for file in args.file]
    for stem in stems:
        if stem in SETS or stems.count(stem) > 1:
            raise ValueError(f"--file: two sets would be called {stem!r}: rename a file")
    public = args.sets if args.sets is not None else [] if args.file else list(SETS)
    return [*public, *(file.stem for file in args.file)]


def model_name(source: str) -> str:
    """Return the name of a model in results: its id on the Hub, or the last part of its folder."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def run(args: argparse.Namespace, work: Sequence[Work]) -> None:
    """Run the cells that have no result yet, and write each result at once."""
    settings = VlmSettings(args.limit, args.seed, args.batch_size, args.dtype, args.max_new_tokens, args.draws)
    check_settings(args.output, settings)
    redo = (store.MISSING, store.FAILED) if args.retry_failed else (store.MISSING,)
    left = [one for one in work if state(args.output, one) in redo]
    if not left:
        return
    device = args.device or str(PartialState().device)
    questions = {name: shared_questions(args, name) for name in dict.fromkeys(one.set for one in left)}
    model = VlmModel.load(args.model, args.dtype, device, args.batch_size, args.seconds)
    runner = CellRunner(model, model_name(args.model), args.scorer, settings)
    is_main = PartialState().is_main_process
    for one in tqdm(left, desc="Cells", disable=not is_main):
        cell = runner.run(questions[one.set], one.row, one.budget)
        if is_main:
            write_json(args.output / f"{one.key}.json", cell.to_dict(), indent=None)  # a line, as scores are many
    PartialState().wait_for_everyone()


def shared_questions(args: argparse.Namespace, name: str) -> Questions:
    """Read the questions of a set in all processes.

    Raises:
        ValueError: they cannot be read.
    """
    own = {file.stem: str(file) for file in args.file}
    try:
        return in_all(lambda: read_questions(args, name, own))
    except CellError as error:
        raise ValueError(error.reason.removeprefix("ValueError: ")) from error


def read_questions(args: argparse.Namespace, name: str, own: dict[str, str]) -> Questions:
    """Read the questions of a set, of the Hub or of a file."""
    if name in own:
        return read_own_questions(own[name], args.metric, args.limit, args.seed, OWN_TOKENS)
    return load_questions(name, args.hub_user, args.limit, args.seed)


def state(folder: Path, work: Work) -> str:
    """Return the state of a cell."""
    known = store.read(folder, work.key)
    return store.MISSING if known is None else known["status"]
