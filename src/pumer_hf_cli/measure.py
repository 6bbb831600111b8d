"""`pumer-hf measure`."""

import argparse

from .command import RESULTS, Command, add_schedule, schedule


class Measure(Command):
    """`pumer-hf measure`."""

    name = "measure"
    summary = "measure whether a model keeps what a question asks about, and whether it answers from what it keeps"
    example = "pumer-hf measure outputs/digit-scenes/student --scenes 50 -o measures.json"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder or Hub id of a model for questions")
        add_schedule(parser)
        parser.add_argument("--scenes", type=int, metavar="N", help="digit scenes to measure on; default: 200")
        parser.add_argument("--vqa-hat", metavar="MAPS", help="folder of VQA-HAT's attention maps, instead of scenes")
        parser.add_argument("--questions", metavar="JSON", help="VQA v1's official questions of the maps")
        parser.add_argument("--images", metavar="FOLDER", help="the COCO images of the questions")
        parser.add_argument("--annotations", metavar="JSON", help="the official answers; without: alignment alone")
        parser.add_argument("--limit", type=int, metavar="N", help="measure on the first N questions of VQA-HAT")
        parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: %(default)s")
        parser.add_argument("--seed", type=int, default=0, help="seed of the random baselines; default: %(default)s")
        parser.add_argument("-o", "--output", metavar="JSON", help=RESULTS)

    def check(self, args: argparse.Namespace) -> None:
        if args.vqa_hat is None:
            only = {"--questions": args.questions, "--images": args.images, "--annotations": args.annotations}
            given = [flag for flag, value in {**only, "--limit": args.limit}.items() if value is not None]
            if given:
                raise ValueError(f"{', '.join(given)}: only with --vqa-hat, the folder of the maps")
        elif args.questions is None or args.images is None or args.scenes is not None:
            raise ValueError("--vqa-hat needs --questions and --images, and takes no --scenes")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.measures.checkpoint import measure_checkpoint
        from pumer_hf.measures.vqa_hat import read_vqa_hat

        choices = {"batch_size": args.batch_size, "seed": args.seed, "output": args.output, **schedule(args)}
        if args.scenes is not None:
            choices["scenes"] = args.scenes
        if args.vqa_hat is not None:
            choices["vqa_hat"] = read_vqa_hat(args.vqa_hat, args.questions, args.images, args.annotations, args.limit)
        print(*measure_checkpoint(args.checkpoint, **choices), sep="\n")
