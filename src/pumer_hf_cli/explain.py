"""`pumer-hf explain`."""

import argparse
from typing import Any

from .choices import DEVICES, DTYPES, in_words
from .command import Command, add_schedule, check_choice, schedule

ONLY_ENCODERS = {"second_image": "--second-image", "keep_aspect_ratio": "--keep-aspect-ratio"}
ONLY_DECODERS = {"max_new_tokens": "--max-new-tokens", "dtype": "--dtype", "device": "--device"}
"""Flags by the name of their value, None if they are not given."""


class Explain(Command):
    """`pumer-hf explain`."""

    name = "explain"
    summary = "draw which patches of an image a model keeps, prunes and merges for a text, or for several"
    example = (
        'pumer-hf explain outputs/digit-scenes/student scene.png "what digit is red?" "how many threes?" -o out.png'
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model")
        parser.add_argument("image", metavar="IMAGE", help="a file")
        parser.add_argument("texts", metavar="TEXT", nargs="+", help="a question or another text; one row for each")
        parser.add_argument("-o", "--output", metavar="OUT", default="explained.png", help="default: %(default)s")
        parser.add_argument("--second-image", metavar="IMAGE", help="for models of two images (NLVR2)")
        add_schedule(parser)
        parser.add_argument(
            "--keep-aspect-ratio",
            action=argparse.BooleanOptionalAction,
            help="whether images keep their shape, or become squares; default: as the model was trained",
        )
        group = parser.add_argument_group("decoder models, whose answers are shown with and without reduction")
        group.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens of an answer; default: 64")
        group.add_argument("--dtype", help=f"{in_words(DTYPES)}; default: that of the checkpoint")
        group.add_argument("--device", help=f"{in_words(DEVICES)}; default: cuda if there is a GPU")

    def check(self, args: argparse.Namespace) -> None:
        if args.max_new_tokens is not None and args.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens {args.max_new_tokens}: must be at least 1")
        if args.dtype is not None:
            check_choice("dtype", args.dtype, DTYPES)
        if args.device is not None:
            check_choice("device", args.device, DEVICES)

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.models.decoder_loading import is_decoder

        if is_decoder(args.checkpoint):
            refuse(args, ONLY_ENCODERS, f"for encoder models only, and {args.checkpoint} is a decoder")
            print(*decoder_lines(args), sep="\n")
            return
        refuse(args, ONLY_DECODERS, f"for decoder models only, and {args.checkpoint} is none")
        from pumer_hf.explain.report import explain_checkpoint

        images = [image for image in (args.image, args.second_image) if image is not None]
        choices = {"keep_aspect_ratio": args.keep_aspect_ratio, **schedule(args)}
        print(*explain_checkpoint(args.checkpoint, images, args.texts, args.output, **choices), sep="\n")


def refuse(args: argparse.Namespace, flags: dict[str, str], reason: str) -> None:
    """Raise `ValueError` if one of some flags is given."""
    given = [flag for name, flag in flags.items() if getattr(args, name) is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: {reason}")


def decoder_lines(args: argparse.Namespace) -> list[str]:
    """Draw what a decoder model keeps, and return the lines to print."""
    import torch

    from pumer_hf.explain.decoder_report import explain_decoder

    given: dict[str, Any] = {} if args.max_new_tokens is None else {"max_new_tokens": args.max_new_tokens}
    return explain_decoder(
        args.checkpoint,
        args.image,
        args.texts,
        args.output,
        dtype=None if args.dtype is None else getattr(torch, args.dtype),
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        **given,
        **schedule(args),
    )
