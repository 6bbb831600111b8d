"""`pumer-hf bench`."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from .choices import BACKBONES, DEVICES, DTYPES, MATMUL_PRECISIONS, TASKS, in_words
from .command import RESULTS, SCHEDULE, Command, check_choice, schedule

if TYPE_CHECKING:
    from pumer_hf.bench.contenders import BenchOptions


class Bench(Command):
    """`pumer-hf bench`."""

    name = "bench"
    summary = "measure speed, memory, FLOPs and tokens of a model, against itself unreduced and stock transformers"
    example = "pumer-hf bench outputs/digit-scenes/student --batch-size 256"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", help="a folder or Hub id of a model")
        what.add_argument(
            "--setting",
            metavar="BACKBONE/TASK",
            help=f"a full-size model with random weights: {in_words(BACKBONES)} / {in_words(TASKS)}",
        )
        what.add_argument("--table", metavar="N", help=argparse.SUPPRESS)  # moved to benchmarks/paper.py
        parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
        parser.add_argument(
            "--text-length", type=int, metavar="N", help="tokens per text; default: as the model was trained"
        )
        parser.add_argument(
            "--pooled-only",
            action="store_true",
            help="set pooled_only in the config of our models: the last layer computes only what their heads read",
        )
        add_measuring_arguments(parser)

    def check(self, args: argparse.Namespace) -> None:
        if args.table is not None:
            raise ValueError(
                f"--table {args.table}: the tables of the paper are measured in a clone of the repository, by "
                f"`python benchmarks/paper.py {args.table}`"
            )
        check_measuring(args)

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.bench.comparison import bench_checkpoint, bench_setting

        options = replace(measuring_options(args), pooled_only=args.pooled_only)
        choices = {"text_length": args.text_length, "output": args.output, **schedule(args)}
        if args.setting is not None:
            lines = bench_setting(args.setting, options, **choices)
        else:
            lines = bench_checkpoint(args.checkpoint, options, **choices)
        print(*lines, sep="\n")


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to measure, which `benchmarks/paper.py` has too."""
    parser.add_argument(
        "--batch-size",
        default="8",
        metavar="N",
        help="or auto: it grows while that pays; default: %(default)s",
    )
    parser.add_argument("--device", help=f"{in_words(DEVICES)}; default: cuda if there is a GPU")
    parser.add_argument("--dtype", default=DTYPES[0], help=f"{in_words(DTYPES)}, of our models; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="compile our models, but not transformers'")
    parser.add_argument(
        "--matmul-precision",
        default=MATMUL_PRECISIONS[0],
        help=f"{in_words(MATMUL_PRECISIONS)}: torch's precision of float32 products; default: %(default)s",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure the memory, which needs training steps"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure; default: %(default)s")
    parser.add_argument("-o", "--output", metavar="JSON", help=RESULTS)


def check_measuring(args: argparse.Namespace) -> None:
    """Raise `ValueError` if one of those flags is wrong."""
    if args.batch_size != "auto" and not args.batch_size.isdigit():
        raise ValueError(f"--batch-size {args.batch_size}: give a number of at least 1, or auto")
    if args.device not in (None, *DEVICES):
        raise ValueError(f"device={args.device!r}: choose {in_words(DEVICES)}")
    check_choice("dtype", args.dtype, DTYPES)
    check_choice("matmul_precision", args.matmul_precision, MATMUL_PRECISIONS)


def measuring_options(args: argparse.Namespace) -> "BenchOptions":
    """Return the options that those flags set."""
    import torch

    from pumer_hf.bench.contenders import BenchOptions

    return BenchOptions(
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        dtype=args.dtype,
        compile=args.compile,
        matmul_precision=args.matmul_precision,
        batch_size=None if args.batch_size == "auto" else int(args.batch_size),
        seconds=args.seconds,
        memory=not args.no_memory,
    )
