"""`pumer-hf convert`."""

import argparse

from .choices import CONVERT_TASKS, KINDS, in_words
from .command import Command


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
        parser.add_argument("--kind", help=f"{in_words(KINDS)}; default: detected")
        parser.add_argument("--task", help=f"{in_words(CONVERT_TASKS)}; default: that of the head")
        parser.add_argument("--image-size", type=int, metavar="N", help="side of the images in pixels")
        processor = parser.add_mutually_exclusive_group()
        processor.add_argument("--processor", metavar="P", help="folder or Hub id of a tokenizer or processor")
        processor.add_argument("--no-processor", action="store_true", help="save the model alone")
        parser.add_argument("--config", metavar="JSON", help="fields of our config: JSON, or a file with it")
        parser.add_argument(
            "--fill-labels", action="store_true", help="name labels LABEL_<index> that a file of labels lacks"
        )

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.convert import convert_checkpoint
        from pumer_hf.reading import parse_json

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
        print(f"Written to {dest}")
