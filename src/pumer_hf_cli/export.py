"""`pumer-hf export`."""

import argparse

from .command import RESULTS, Command, add_schedule, schedule


class Export(Command):
    """`pumer-hf export`."""

    name = "export"
    summary = "write a model as an ONNX file, compare it with PyTorch, and time both"
    example = "pumer-hf export outputs/digit-scenes/student student.onnx --int8"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument("dest", metavar="DEST.onnx", help="the file to make; it takes batches of any size")
        add_schedule(parser)
        parser.add_argument("--int8", action="store_true", help="write DEST.int8.onnx too, with linear layers in int8")
        parser.add_argument(
            "--text-length",
            type=int,
            metavar="N",
            help="tokens per text, fixed in the file; default: as the model was trained",
        )
        parser.add_argument(
            "--batch-size", type=int, default=8, metavar="N", help="examples to time; default: %(default)s"
        )
        parser.add_argument("--seconds", type=float, default=10.0, help="how long to time; default: %(default)s")
        parser.add_argument("-o", "--output", metavar="JSON", help=RESULTS)

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.export.checkpoint import export_checkpoint

        choices = {"text_length": args.text_length, "batch_size": args.batch_size, "seconds": args.seconds}
        choices |= {"int8": args.int8, "output": args.output, **schedule(args)}
        print(*export_checkpoint(args.checkpoint, args.dest, **choices), sep="\n")
