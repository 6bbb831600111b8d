"""`pumer-hf bench`."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .choices import (
    ATTENTIONS,
    BACKBONES,
    DECODER_SETTINGS,
    DEVICES,
    DTYPES,
    MATMUL_PRECISIONS,
    TASKS,
    in_words,
)
from .command import RESULTS, Command, add_schedule, check_choice, schedule

if TYPE_CHECKING:
    from pumer_hf.bench.contenders import BenchOptions

BATCH_SIZE = 8
"""The batch size of an encoder unless another one is asked for."""
ONLY_DECODERS = {
    "image_tokens": "--image-tokens",
    "new_tokens": "--new-tokens",
    "attention": "--attention",
    "random_weights": "--random-weights",
}
"""The flags that only decoder models have, by name of the argument."""


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
            help=f"a full-size model with random weights: {in_words(BACKBONES)} / {in_words(TASKS)}; or a decoder: "
            f"{in_words(DECODER_SETTINGS)}",
        )
        what.add_argument("--table", metavar="N", help=argparse.SUPPRESS)  # moved to benchmarks/paper.py
        add_schedule(parser)
        parser.add_argument(
            "--text-length",
            type=int,
            metavar="N",
            help="tokens per text; default: as the model was trained; of a decoder's prompt, without the images: 32",
        )
        parser.add_argument(
            "--pooled-only",
            action="store_true",
            help="set pooled_only in the config of our models: the last layer computes only what their heads read",
        )
        add_measuring_arguments(parser)
        add_decoder_arguments(parser)

    def check(self, args: argparse.Namespace) -> None:
        if args.table is not None:
            raise ValueError(
                f"--table {args.table}: the tables of the paper are measured in a clone of the repository, by "
                f"`python benchmarks/paper.py {args.table}`"
            )
        check_measuring(args)
        if args.attention is not None:
            check_choice("attention", args.attention, ATTENTIONS)
        if args.setting is not None and "/" not in args.setting and args.setting not in DECODER_SETTINGS:
            raise ValueError(
                f"--setting {args.setting}: give a backbone and a task, such as vilt/vqa, or a decoder: "
                f"{in_words(DECODER_SETTINGS)}"
            )
        if args.setting is not None and args.random_weights:
            raise ValueError("--random-weights: a --setting has them anyway: leave it out")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.bench.comparison import bench_checkpoint, bench_setting

        if is_decoder(args):
            print(*decoder_lines(args), sep="\n")
            return
        given = [flag for name, flag in ONLY_DECODERS.items() if getattr(args, name) is not None]
        if given:
            raise ValueError(
                f"{', '.join(given)}: only for decoder models, and {args.checkpoint or args.setting} is none"
            )

        options = replace(measuring_options(args), pooled_only=args.pooled_only)
        choices = {"text_length": args.text_length, "output": args.output, **schedule(args)}
        if args.setting is not None:
            lines = bench_setting(args.setting, options, **choices)
        else:
            lines = bench_checkpoint(args.checkpoint, options, **choices)
        print(*lines, sep="\n")


def add_decoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for decoder models."""
    group = parser.add_argument_group("decoder models")
    group.add_argument(
        "--image-tokens", type=int, metavar="N", help="image tokens per prompt; default: those of one usual image"
    )
    group.add_argument(
        "--random-weights",
        action="store_true",
        default=None,
        help="read only the config of CHECKPOINT, and make random weights",
    )
    group.add_argument(
        "--new-tokens", type=int, metavar="N", help="tokens to generate, 0 for the prefill alone; default: 16"
    )
    group.add_argument("--attention", help=f"{in_words(ATTENTIONS)}: transformers' kernels of it; default: sdpa")


def is_decoder(args: argparse.Namespace) -> bool:
    """Return whether the command line names a decoder model."""
    if args.setting is not None:
        return args.setting in DECODER_SETTINGS
    from pumer_hf.models.decoder_loading import is_decoder as is_decoder_checkpoint

    return is_decoder_checkpoint(args.checkpoint)


def decoder_lines(args: argparse.Namespace) -> list[str]:
    """Measure a decoder model, and return the lines to print."""
    from pumer_hf.bench.decoder_measure import DecoderOptions
    from pumer_hf.bench.decoders import bench_decoder, bench_shape

    if args.pooled_only:
        raise ValueError("--pooled-only: a decoder model has no pooled output: leave it out")
    if args.batch_size == "auto":
        raise ValueError("--batch-size auto: give a number for a decoder model")
    names = ("image_tokens", "new_tokens", "attention", "text_length")
    given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    shared = measuring_options(args)
    options = DecoderOptions(
        device=shared.device,
        dtype=shared.dtype,
        compile=shared.compile,
        matmul_precision=shared.matmul_precision,
        batch_size=1 if args.batch_size is None else int(args.batch_size),
        seconds=shared.seconds,
        memory=shared.memory,
        **given,
    )
    choices = {"output": args.output, **schedule(args)}
    if args.setting is not None:
        return bench_shape(args.setting, options, **choices)
    return bench_decoder(args.checkpoint, options, random_weights=bool(args.random_weights), **choices)


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to measure and how, which `benchmarks/paper.py` has too."""
    add_timing_arguments(parser)
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure the memory, which needs training steps"
    )
    parser.add_argument("-o", "--output", metavar="JSON", help=RESULTS)


def add_timing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to measure a speed."""
    parser.add_argument(
        "--batch-size",
        metavar="N",
        help="or auto: it grows while that pays; default: 8, and 1 for a decoder",
    )
    parser.add_argument("--device", help=f"{in_words(DEVICES)}; default: cuda if there is a GPU")
    parser.add_argument("--dtype", default=DTYPES[0], help=f"{in_words(DTYPES)}, of our models; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="compile our models, but not transformers'")
    parser.add_argument(
        "--matmul-precision",
        default=MATMUL_PRECISIONS[0],
        help=f"{in_words(MATMUL_PRECISIONS)}: torch's precision of float32 products; default: %(default)s",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure; default: %(default)s")


def check_measuring(args: argparse.Namespace) -> None:
    """Raise `ValueError` if one of those flags is wrong."""
    if args.batch_size not in (None, "auto") and not args.batch_size.isdigit():
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
        batch_size=None if args.batch_size == "auto" else int(args.batch_size or BATCH_SIZE),
        seconds=args.seconds,
        memory=not args.no_memory,
    )
