"""`pumer-hf generate`."""

import argparse

from .choices import DEVICES, DTYPES, in_words
from .command import Command, add_schedule, check_choice, schedule


class Generate(Command):
    """`pumer-hf generate`."""

    name = "generate"
    summary = "ask a decoder model about an image, with fewer image tokens, or with fewer and with all"
    example = (
        'pumer-hf generate llava-hf/llava-1.5-7b-hf photo.jpg "What is on the table?" --compare '
        '--reduction \'{"method": "pumer", "site": "inputs", "keep_ratio": 0.25}\''
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument("image", metavar="IMAGE", help="a file")
        parser.add_argument(
            "question", metavar="TEXT", help="a question, or a prompt with the model's image placeholder"
        )
        add_schedule(parser)
        parser.add_argument("--compare", action="store_true", help="let the unreduced model answer too")
        parser.add_argument(
            "--max-new-tokens",
            type=int,
            default=64,
            metavar="N",
            help="most tokens of the answer; default: %(default)s",
        )
        parser.add_argument("--dtype", help=f"{in_words(DTYPES)}; default: that of the checkpoint")
        parser.add_argument("--device", help=f"{in_words(DEVICES)}; default: cuda if there is a GPU")

    def check(self, args: argparse.Namespace) -> None:
        if args.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens {args.max_new_tokens}: must be at least 1")
        if args.dtype is not None:
            check_choice("dtype", args.dtype, DTYPES)
        if args.device is not None:
            check_choice("device", args.device, DEVICES)

    def run(self, args: argparse.Namespace) -> None:
        import torch

        from pumer_hf.answering import answer_checkpoint

        answer_checkpoint(
            args.checkpoint,
            args.image,
            args.question,
            compare=args.compare,
            max_new_tokens=args.max_new_tokens,
            dtype=None if args.dtype is None else getattr(torch, args.dtype),
            device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            **schedule(args),
        )
