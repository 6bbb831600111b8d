"""`pumer-hf explain`."""

import argparse

from .command import SCHEDULE, Command, schedule


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
            "--keep-aspect-ratio",
            action=argparse.BooleanOptionalAction,
            help="whether images keep their shape, or become squares; default: as the model was trained",
        )

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.explain.report import explain_checkpoint

        images = [image for image in (args.image, args.second_image) if image is not None]
        choices = {"keep_aspect_ratio": args.keep_aspect_ratio, **schedule(args)}
        print(*explain_checkpoint(args.checkpoint, images, args.texts, args.output, **choices), sep="\n")
