"""The command `pumer-hf`; also `python -m pumer_hf.cli`. A subcommand is a class below and a line in `COMMANDS`."""

import argparse
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from .reading import parse_json

SCHEDULE = "another schedule than the checkpoint's: JSON, or a file with it; null: none"


class Command(ABC):
    """A subcommand. It imports what it needs when it runs, so that `--help` is quick."""

    name: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[str]

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> None:
        """Do the work."""


class Convert(Command):
    """`pumer-hf convert`."""

    name = "convert"
    summary = (
        "turn an original ViLT or METER, a PuMer release or a stock ViLT into a folder that the Auto classes load"
    )
    example = "pumer-hf convert meter_clip16_288_roberta_vqa.ckpt meter-vqa --image-size 384"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", help="a checkpoint file, or a folder or Hub id of a model")
        parser.add_argument("dest", metavar="DEST", help="the folder to make")
        parser.add_argument("--kind", help="original_vilt, original_meter, released_vilt, ...; default: detected")
        parser.add_argument("--task", help="vqa, nlvr2, ve, retrieval or pretrain; default: that of the head")
        parser.add_argument("--image-size", type=int, metavar="N", help="side of the images in pixels")
        processor = parser.add_mutually_exclusive_group()
        processor.add_argument("--processor", metavar="P", help="folder or Hub id of a tokenizer or processor")
        processor.add_argument("--no-processor", action="store_true", help="save the model alone")
        parser.add_argument("--config", metavar="JSON", help="fields of our config: JSON, or a file with it")
        parser.add_argument(
            "--fill-labels", action="store_true", help="name labels LABEL_<index> that a file of labels lacks"
        )

    def run(self, args: argparse.Namespace) -> None:
        from .convert import convert_checkpoint

        dest = convert_checkpoint(
            args.source,
            args.dest,
            kind=args.kind,
            task=args.task,
            image_size=args.image_size,
            processor=False if args.no_processor else args.processor,
            config=None if args.config is None else parse_json(args.config, "--config"),
            fill_labels=args.fill_labels,
        )
        print(f"saved in {dest}")


class Bench(Command):
    """`pumer-hf bench`."""

    name = "bench"
    summary = "measure speed, memory, FLOPs and tokens of a model, against itself unreduced and stock transformers"
    example = "pumer-hf bench outputs/digit-scenes/student --batch-size 256"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", help="a folder or Hub id of a model")
        what.add_argument(
            "--setting", metavar="BACKBONE/TASK", help="a full-size model with random weights, such as vilt/vqav2"
        )
        what.add_argument("--table", type=int, metavar="N", help="a table of PuMer's paper: 1, 2, 4 or 7")
        parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
        parser.add_argument(
            "--batch-size", default="8", metavar="N", help="or auto: grown until it stops paying; default: %(default)s"
        )
        parser.add_argument("--text-length", type=int, metavar="N", help="tokens per text; default: at most 40")
        parser.add_argument("--device", help="cpu or cuda; default: cuda if there is a GPU")
        parser.add_argument(
            "--dtype", default="float32", help="float32, bfloat16 or float16, of our models; default: %(default)s"
        )
        parser.add_argument(
            "--compile", action="store_true", help="compile our models; transformers' runs as it comes"
        )
        parser.add_argument(
            "--matmul-precision",
            default="highest",
            help="highest, high or medium: torch's, of float32 products; default: %(default)s",
        )
        parser.add_argument(
            "--pooled-only",
            action="store_true",
            help="set pooled_only in the config of our models: the last layer computes only what their heads read",
        )
        parser.add_argument(
            "--no-memory", action="store_true", help="leave the memory out, which takes training steps"
        )
        parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure; default: %(default)s")
        parser.add_argument("-o", "--output", metavar="JSON", help="write the results to a file too")

    def run(self, args: argparse.Namespace) -> None:
        import torch

        from .bench.contenders import Settings
        from .bench.run import bench_checkpoint, bench_setting, bench_table

        if args.batch_size != "auto" and not args.batch_size.isdigit():
            raise ValueError(f"--batch-size {args.batch_size}: give a number of at least 1, or auto")
        settings = Settings(
            device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=args.dtype,
            compile=args.compile,
            matmul_precision=args.matmul_precision,
            batch_size=None if args.batch_size == "auto" else int(args.batch_size),
            seconds=args.seconds,
            memory=not args.no_memory,
            pooled_only=args.pooled_only,
        )
        if args.table is not None:
            if args.reduction is not None or args.text_length is not None or args.pooled_only:
                raise ValueError(
                    "--table has its own models and texts: leave --reduction, --text-length and --pooled-only out"
                )
            lines = bench_table(args.table, settings, args.output)
        else:
            choices = {"text_length": args.text_length, "output": args.output, **schedule(args)}
            if args.setting is not None:
                lines = bench_setting(args.setting, settings, **choices)
            else:
                lines = bench_checkpoint(args.checkpoint, settings, **choices)
        print(*lines, sep="\n")


class Export(Command):
    """`pumer-hf export`."""

    name = "export"
    summary = "write a model as an ONNX file, check it against PyTorch, and time it beside"
    example = "pumer-hf export outputs/digit-scenes/student student.onnx --int8"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument("dest", metavar="DEST.onnx", help="the file to make; it takes batches of any size")
        parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
        parser.add_argument("--int8", action="store_true", help="write DEST.int8.onnx too, with linear layers in int8")
        parser.add_argument(
            "--text-length", type=int, metavar="N", help="tokens per text, fixed in the file; default: at most 40"
        )
        parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="to time; default: %(default)s")
        parser.add_argument("--seconds", type=float, default=10.0, help="how long to time; default: %(default)s")
        parser.add_argument("-o", "--output", metavar="JSON", help="write the results to a file too")

    def run(self, args: argparse.Namespace) -> None:
        from .export.run import export_checkpoint

        choices = {"text_length": args.text_length, "batch_size": args.batch_size, "seconds": args.seconds}
        choices |= {"int8": args.int8, "output": args.output, **schedule(args)}
        print(*export_checkpoint(args.checkpoint, args.dest, **choices), sep="\n")


class Explain(Command):
    """`pumer-hf explain`."""

    name = "explain"
    summary = "draw which patches of an image each layer keeps, prunes and merges for a text, or for several"
    example = (
        'pumer-hf explain outputs/digit-scenes/student scene.png "what digit is red?" "how many threes?" -o out.png'
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument("image", metavar="IMAGE", help="a file")
        parser.add_argument("texts", metavar="TEXT", nargs="+", help="a question or another text; one row for each")
        parser.add_argument("-o", "--output", metavar="OUT", default="explained.png", help="default: %(default)s")
        parser.add_argument("--second-image", metavar="IMAGE", help="for models of two images (NLVR2)")
        parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
        parser.add_argument(
            "--keep-aspect-ratio", action="store_true", help="for a ViLT that was trained so; default: squares"
        )

    def run(self, args: argparse.Namespace) -> None:
        from .explain.report import explain_checkpoint

        images = [image for image in (args.image, args.second_image) if image is not None]
        choices = {"keep_aspect_ratio": args.keep_aspect_ratio, **schedule(args)}
        print(*explain_checkpoint(args.checkpoint, images, args.texts, args.output, **choices), sep="\n")


class Measure(Command):
    """`pumer-hf measure`."""

    name = "measure"
    summary = "measure whether a model keeps what a question asks about, and whether it answers from what it keeps"
    example = "pumer-hf measure outputs/digit-scenes/student --scenes 50 -o measures.json"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model for questions")
        parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
        parser.add_argument("--scenes", type=int, metavar="N", help="digit scenes to measure on; default: 200")
        parser.add_argument("--vqa-hat", metavar="MAPS", help="folder of VQA-HAT's attention maps, instead of scenes")
        parser.add_argument("--questions", metavar="JSON", help="VQA v1's official questions of the maps")
        parser.add_argument("--images", metavar="FOLDER", help="the COCO images of the questions")
        parser.add_argument("--annotations", metavar="JSON", help="the official answers; without: alignment alone")
        parser.add_argument("--limit", type=int, metavar="N", help="measure on the first N questions of VQA-HAT")
        parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: %(default)s")
        parser.add_argument("--seed", type=int, default=0, help="of the random baselines; default: %(default)s")
        parser.add_argument("-o", "--output", metavar="JSON", help="write the results to a file too")

    def run(self, args: argparse.Namespace) -> None:
        choices = {"batch_size": args.batch_size, "seed": args.seed, "output": args.output, **schedule(args)}
        if args.vqa_hat is None:
            only = {"--questions": args.questions, "--images": args.images, "--annotations": args.annotations}
            given = [flag for flag, value in {**only, "--limit": args.limit}.items() if value is not None]
            if given:
                raise ValueError(f"{', '.join(given)}: only with --vqa-hat, the folder of the maps")
            if args.scenes is not None:
                choices["scenes"] = args.scenes
        elif args.questions is None or args.images is None or args.scenes is not None:
            raise ValueError("--vqa-hat needs --questions and --images, and takes no --scenes")
        else:
            from .explain.vqa_hat import read_vqa_hat

            choices["vqa_hat"] = read_vqa_hat(args.vqa_hat, args.questions, args.images, args.annotations, args.limit)
        from .explain.measure_run import measure_checkpoint

        print(*measure_checkpoint(args.checkpoint, **choices), sep="\n")


class Demo(Command):
    """`pumer-hf demo`."""

    name = "demo"
    summary = "serve a page on which to try a model for questions or entailment, or write it as a Space"
    example = "pumer-hf demo outputs/digit-scenes/student --teacher outputs/digit-scenes/teacher"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument("--teacher", metavar="FULL", help="an unreduced model to compare it with")
        parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
        parser.add_argument("--examples", metavar="FOLDER", help="with examples.jsonl: lines with image and text")
        parser.add_argument("--host", help="address to serve on, such as 0.0.0.0; default: this machine alone")
        parser.add_argument("--port", type=int, help="default: the first free one from 7860")
        parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
        parser.add_argument("--export-space", metavar="FOLDER", help="write the page as a Space, and serve nothing")
        parser.add_argument("--requirement", help="how the Space's pip finds pumer-hf; default: a wheel in the Space")

    def run(self, args: argparse.Namespace) -> None:
        from . import demo

        if args.export_space is None:
            if args.requirement is not None:
                raise ValueError("--requirement is for --export-space")
            choices = {"host": args.host, "port": args.port, "share": args.share}
            demo.launch(args.checkpoint, args.teacher, args.examples, **choices, **schedule(args))
            return
        choices = {"teacher": args.teacher, "examples": args.examples, "requirement": args.requirement}
        folder = demo.export_space(args.checkpoint, args.export_space, **choices, **schedule(args))
        print(f"saved in {folder}; to publish it:")
        print("  hf repos create USER/NAME --type space --sdk docker")
        print(f"  hf upload USER/NAME {folder} --type space")


class Card(Command):
    """`pumer-hf card`."""

    name = "card"
    summary = "render model cards: README.md from the facts in results.json, which a recipe leaves beside it"
    example = "pumer-hf card outputs/digit-scenes/student"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="folder of a model or a card")
        parser.add_argument(
            "--recipe",
            metavar="YAML",
            type=Path,
            help="make results.json first, from a recipe; of a folder of recipes, a card for each of its pumer.yaml",
        )
        parser.add_argument(
            "--results",
            metavar="JSON",
            type=Path,
            help="results.json of the recipe's run; with a folder of recipes, a folder of <task>_<backbone>.json",
        )

    def run(self, args: argparse.Namespace) -> None:
        from .hub.card import FACTS_NAME, PuMerCard

        if args.recipe is None and args.results is not None:
            raise ValueError("--results needs --recipe, which was run")
        if args.recipe is not None and len(args.folders) > 1:
            raise ValueError("--recipe is for one FOLDER")
        written = args.folders
        if args.recipe is not None:
            from .training.cards import recipe_file_card, write_recipe_cards

            if args.recipe.is_dir():
                written = write_recipe_cards(args.folders[0], args.recipe, args.results)
            else:
                recipe_file_card(args.recipe, args.results).save(args.folders[0])
        else:
            for folder in args.folders:
                known = (folder / FACTS_NAME).is_file() or not (folder / "config.json").is_file()
                (PuMerCard.load(folder) if known else PuMerCard.from_checkpoint(folder)).save(folder)
        for folder in written:
            print(f"written: {folder / 'README.md'}")


class Push(Command):
    """`pumer-hf push`."""

    name = "push"
    summary = "push a folder to the Hub: model, processor, labels and card in one commit, no checkpoints or pickles"
    example = "pumer-hf push outputs/digit-scenes/student user/pumer-digit-scenes --private --dry-run"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="folder of a model, with its processor")
        parser.add_argument("repo", metavar="REPO", help="user/name; made if it does not exist")
        visibility = parser.add_mutually_exclusive_group()
        visibility.add_argument("--private", action="store_const", const=True, dest="private", help="a private one")
        visibility.add_argument("--public", action="store_const", const=False, dest="private", help="a public one")
        parser.add_argument("--revision", metavar="BRANCH", help="push to this branch, made if it does not exist")
        parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of a commit")
        parser.add_argument("--message", default="Upload model", help="first line of the commit")
        parser.add_argument("--dry-run", action="store_true", help="list the files and push nothing")

    def run(self, args: argparse.Namespace) -> None:
        from .hub.push import files_to_push, push_folder

        if args.dry_run:
            print(files_to_push(args.folder, args.repo).listing())
            return
        commit = push_folder(
            args.folder,
            args.repo,
            private=args.private,
            revision=args.revision,
            create_pr=args.create_pr,
            commit_message=args.message,
        )
        print(f"pushed: {commit.pr_url or commit.commit_url}")


COMMANDS: tuple[Command, ...] = (Convert(), Bench(), Export(), Explain(), Measure(), Demo(), Card(), Push())


def schedule(args: argparse.Namespace) -> dict[str, Any]:
    """`--reduction` as a keyword argument; none if it is not given."""
    return {} if args.reduction is None else {"reduction": parse_json(args.reduction, "--reduction")}


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    examples = "\n".join(f"  {command.example}" for command in COMMANDS)
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="pumer-hf",
        description="Vision-language transformers that prune and merge their tokens.",
        epilog=f"examples:\n{examples}",
        formatter_class=layout,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=layout,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status is 2 for what the user can mend."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:  # ImportError: an extra is not installed
        print(f"pumer-hf {args.command}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
