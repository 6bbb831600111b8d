"""`pumer-hf example`."""

import argparse

from .command import Command


class Example(Command):
    """`pumer-hf example`."""

    name = "example"
    summary = "copy a small trained model and two pictures, which come with the package, into a folder"
    example = "pumer-hf example my-example"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="where to write model/, scene-1.png and scene-2.png")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.example import copy_example

        for path in copy_example(args.folder):
            print(path)
