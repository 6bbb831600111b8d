"""`pumer-hf tune`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .bench import BATCH_SIZE, add_timing_arguments, check_measuring, measuring_options
from .command import RESULTS, Command

WITH_DATA = {
    "examples": "--examples",
    "split": "--split",
    "image_column": "--image-column",
    "text_column": "--text-column",
    "work": "--work",
    "picture": "--picture",
}
"""The flags that only a tuning with data has, by name of the argument."""


class Tune(Command):
    """`pumer-hf tune`."""

    name = "tune"
    summary = "find the schedule that measures a given speed on this machine; with data, the best one of several"
    example = "pumer-hf tune outputs/digit-scenes/teacher --speed 1.8 -o tuned.json"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="MODEL", help="a folder or Hub id of a model")
        parser.add_argument(
            "--speed", type=float, required=True, metavar="X", help="how many times as fast as unreduced, such as 1.8"
        )
        parser.add_argument(
            "--reduction",
            metavar="JSON",
            help="the schedule whose ratios are scaled: JSON, or a file with it; layers and ratios may be left out; "
            "default: the checkpoint's, else that of pumer; with --data: several, which are compared",
        )
        parser.add_argument("--method", metavar="NAME", help="a method with its usual schedule, for --reduction")
        parser.add_argument("--site", metavar="SITE", help="with --method: where it works, such as inputs")
        parser.add_argument("--text-length", type=int, metavar="N", help="tokens per text; default: as bench has it")
        parser.add_argument("--image-tokens", type=int, metavar="N", help="image tokens per prompt of a decoder")
        add_timing_arguments(parser)
        parser.set_defaults(no_memory=True)
        parser.add_argument("-o", "--output", metavar="JSON", help="write the schedule to a file, for --reduction")
        parser.add_argument("--results", metavar="JSON", help=RESULTS)
        group = parser.add_argument_group("comparing schedules on data")
        group.add_argument(
            "--data",
            metavar="DATA",
            help="images with questions, with answers or without: a .jsonl or .csv file, a folder, a Hub data set, or "
            "digit_scenes",
        )
        group.add_argument("--examples", type=int, metavar="N", help="rows to evaluate on; default: 500")
        group.add_argument("--split", metavar="NAME", help="split of a data set; default: validation")
        group.add_argument("--image-column", metavar="NAME", help="column of the images; default: image")
        group.add_argument("--text-column", metavar="NAME", help="column of the questions; default: question, ...")
        group.add_argument("--work", metavar="FOLDER", help="keeps what is finished; default: outputs/NAME-tuning")
        group.add_argument(
            "--picture", metavar="PNG", help="draw the answers over the speed, at lower speeds too, which takes longer"
        )

    def check(self, args: argparse.Namespace) -> None:
        check_measuring(args)
        if args.batch_size == "auto":
            raise ValueError("--batch-size auto: give a number, since a schedule is found for one batch size")
        if args.method is not None and args.reduction is not None:
            raise ValueError("--method and --reduction are both given: choose one")
        if args.site is not None and args.method is None:
            raise ValueError(f"--site {args.site}: give it with --method, or in --reduction")
        given = [flag for name, flag in WITH_DATA.items() if getattr(args, name) is not None]
        if given and args.data is None:
            raise ValueError(f"{', '.join(given)}: only with --data, the questions to compare schedules on")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.folders import check_file, write_json
        from pumer_hf.tuning import TuneOptions, tune
        from pumer_hf.tuning.picture import draw_front, load_figure

        files = {"-o": args.output, "--results": args.results, "--picture": args.picture}
        for flag, path in files.items():
            if path is not None:
                check_file(path, flag)
        if args.picture is not None:
            load_figure()
        names = ("text_length", "image_tokens", "data", "split", "image_column", "text_column", "examples")
        given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        options = TuneOptions(args.speed, measuring=measuring_of(args), **asked_schedule(args), **given)
        work = args.work or (f"outputs/{Path(args.checkpoint).name}-tuning" if args.data else None)
        tuned = tune(args.checkpoint, options, work=work, with_front=args.picture is not None)
        print(*tuned.lines(), sep="\n")
        if args.output is not None:
            write_json(Path(args.output), tuned.reduction)
        if args.results is not None:
            tuned.save(args.results)
        if args.picture is not None:
            draw_front(tuned, args.picture)
        written = [path for path in files.values() if path is not None]
        use = "-o tuned.json writes the schedule to a file, for --reduction tuned.json of every command."
        print(f"Written to {', '.join(written)}" if written else use)


def asked_schedule(args: argparse.Namespace) -> dict[str, Any]:
    """Return the schedule that flags ask for as a keyword argument, or no argument without such flags."""
    if args.method is not None:
        return {"reduction": {"method": args.method, **({} if args.site is None else {"site": args.site})}}
    if args.reduction is None:
        return {}
    from pumer_hf.reading import parse_json

    return {"reduction": parse_json(args.reduction, "--reduction")}


def measuring_of(args: argparse.Namespace) -> Any:
    """Return how to measure. The default batch size is that of `pumer-hf bench`: 8, and 1 for a decoder."""
    from pumer_hf.models.decoder_loading import is_decoder

    options = measuring_options(args)
    default = 1 if is_decoder(args.checkpoint) else BATCH_SIZE
    return options if args.batch_size is not None else replace(options, batch_size=default)
