"""`pumer-hf demo`."""

import argparse

from .command import Command, add_schedule, schedule


class Demo(Command):
    """`pumer-hf demo`."""

    name = "demo"
    summary = "serve a page on which to try a decoder, or a model for questions or entailment, or write it as a Space"
    example = "pumer-hf demo outputs/digit-scenes/student --teacher outputs/digit-scenes/teacher"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument(
            "--teacher",
            metavar="FULL",
            help="an unreduced model to compare it with; a decoder is compared with itself",
        )
        add_schedule(parser)
        parser.add_argument("--examples", metavar="FOLDER", help="with examples.jsonl: lines with image and text")
        parser.add_argument("--host", help="address to serve on, such as 0.0.0.0; default: this machine alone")
        parser.add_argument("--port", type=int, help="default: the first free one from 7860")
        parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
        parser.add_argument("--export-space", metavar="FOLDER", help="write the page as a Space, and serve nothing")
        parser.add_argument("--requirement", help="how the Space's pip finds pumer-hf; default: a wheel in the Space")

    def check(self, args: argparse.Namespace) -> None:
        if args.export_space is None and args.requirement is not None:
            raise ValueError("--requirement is for --export-space")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf import demo

        if args.export_space is None:
            choices = {"host": args.host, "port": args.port, "share": args.share}
            demo.launch(args.checkpoint, args.teacher, args.examples, **choices, **schedule(args))
            return
        choices = {"teacher": args.teacher, "examples": args.examples, "requirement": args.requirement}
        folder = demo.export_space(args.checkpoint, args.export_space, **choices, **schedule(args))
        print(f"Written to {folder}; to publish it:")
        print("  hf repos create USER/NAME --type space --sdk docker")
        print(f"  hf upload USER/NAME {folder} --type space")
