"""`pumer-hf evaluate` and `recipes/evaluate.py`: evaluate a model on a split, or answer the questions of a test."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..data.arguments import DataArguments, only_split
from ..data.task import Task, TaskData
from ..data.tasks import TASKS
from ..encoding import checkpoint_record
from ..folders import check_file, check_writable, write_json
from ..models.decoders.modeling import ReducedDecoder
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import DECODERS, FAMILIES
from ..results import Environment, check_results_file
from .build import load_model, saved_processor, trained_backbone
from .checks import check_text_length
from .decoders import decoder_answers, decoder_task
from .finetuning import default_recipe, paper_recipe
from .parser import parse_recipe, read_blocks
from .program import exit_on_user_error, leaving_group, program_name
from .recipe import Recipe
from .report import EvaluationReport
from .run_results import evaluate
from .stages import predict
from .threads import use_available_cores

SCENES_DECODER = "llava"
"""The family whose recipe on digit scenes has the data for the evaluation of any decoder."""


@leaving_group()
def evaluate_recipe(description: str, arguments: Sequence[str] | None = None) -> None:
    """Run the evaluation of a command line.

    Args:
        description: the text of `--help`.
        arguments: the command line without the program; default `sys.argv[1:]`. If it names no recipe file, the data
            are digit scenes, as in the task's recipe for them.
    """
    args, rest = build_parser(description).parse_known_args(arguments)
    task = TASKS[args.task]
    with exit_on_user_error():
        if args.questions and (task.read_questions is None or not args.submission):
            names = " or ".join(name for name, one in TASKS.items() if one.read_questions is not None)
            raise ValueError(f"--questions is for the task {names}, and needs --submission and --image_dir")
        backbone, config = trained_backbone("--model", args.model, task)
        task = decoder_task(task, backbone) if backbone in DECODERS else task
        recipe = asked_recipe(args, task, backbone, config, rest)
        check_files(args, recipe.data)
        model = load_model(args.model, None if args.unreduced else config.get("reduction"), task, flag="--model")
        processor = saved_processor("--model", args.model)
        model = model.to(recipe.training.device)
        labels: list[str] = []
        if backbone not in DECODERS:
            check_text_length(recipe.data.max_text_length, model)
            labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        if recipe.training.device.type == "cpu":
            use_available_cores(recipe.training.world_size)
        if args.questions and task.read_questions is not None:
            rows = task.read_questions(args.questions, recipe.data.image_dir)
            questions = TaskData(rows, rows, rows, tuple(labels))
            collator = task.collator(processor, questions, recipe.data, False)
            write_submission(recipe, model, rows, collator, Path(args.submission))
            return
        data = task.load(recipe.data, labels)
        evaluation = evaluate(task, recipe.training, model, data, task.collator(processor, data, recipe.data, False))
    if args.split in data.missing_images:
        counts = {**evaluation.counts, "missing_images": data.missing_images[args.split]}
        evaluation = replace(evaluation, counts=counts)
    if recipe.training.process_index == 0:
        length = None if backbone in DECODERS else recipe.data.max_text_length
        report = EvaluationReport(args.model, task.name, args.split, length, evaluation, Environment.current())
        print(*report.lines(), report.finish(args.output), sep="\n")


def asked_recipe(
    args: argparse.Namespace, task: Task, backbone: str, config: dict[str, Any], flags: list[str]
) -> Recipe:
    """Return the recipe whose `data` block and whose training arguments an evaluation uses.

    Args:
        args: the evaluation's own arguments.
        task: the task of the model.
        backbone: the family of the model.
        config: its config.
        flags: the other arguments, which are those of a recipe.
    """
    is_decoder = backbone in DECODERS
    one_split = replace(task, arguments=only_split(task.arguments, args.split))
    default = default_recipe(task, SCENES_DECODER) if is_decoder else default_recipe(task)
    recipe = parse_recipe(one_split, default, [*([args.recipe] if args.recipe else []), *flags])
    if args.recipe:
        return recipe
    own: list[str] = []
    if not is_decoder:
        longest = FAMILIES[backbone].config_class.from_dict(config).max_text_length
        own = input_flags(args.model, task, recipe.data, longest)
    if recipe.data.is_own:  # the batch size for digit scenes does not suit it
        paper = read_blocks(paper_recipe(backbone, task), task)["training"]
        own += ["--per_device_eval_batch_size", str(paper["per_device_eval_batch_size"])]
    return parse_recipe(one_split, default, [*own, *flags])


def input_flags(model: str, task: Task, data: DataArguments, longest: int) -> list[str]:
    """Return flags for how the inputs of a model are made, if no recipe file is given.

    Inputs are made as in the training of the model ([`checkpoint_record`]). If the model has no record of its text
    length, the length is that of the recipe for digit scenes, or, for other data, the default of the task.

    Args:
        model: a folder, or an id on the Hub.
        task: the task.
        data: the `data` block of the task's recipe on digit scenes, with the flags of the user.
        longest: the most tokens that the model takes.
    """
    usual = task.arguments().max_text_length if data.is_own else data.max_text_length
    record = checkpoint_record(model, longest, usual)
    values = {"max_text_length": record.max_text_length, "keep_aspect_ratio": record.keep_aspect_ratio}
    return [word for name, value in values.items() for word in (f"--{name}", str(value).lower())]


def check_files(args: argparse.Namespace, data: DataArguments) -> None:
    """Raise `ValueError` if flags about files contradict each other, or if a file cannot be written."""
    check_results_file(args.output)
    if args.output and args.questions:
        raise ValueError("-o is for metrics, but --questions gives none: --submission names the file of answers")
    if args.submission and not args.questions:
        raise ValueError("--submission needs --questions, the official file with the questions to answer")
    if args.questions and not data.image_dir:
        raise ValueError("--questions needs --image_dir, the folder of their images")
    if data.image_dir and not args.questions and data.dataset is None and not data.has_files:
        raise ValueError("--image_dir is given, but no file that says what to ask about the images")
    if args.submission:
        check_writable(Path(args.submission).parent, "--submission")  # this makes the folder
        check_file(args.submission, "--submission")


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of the evaluation's own arguments; all others are those of a recipe."""
    parser = argparse.ArgumentParser(
        prog=program_name(), description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE.yaml", help="for its data block; default: the task's on digit scenes"
    )
    parser.add_argument("--model", required=True, help="a trained model: folder or Hub id")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--unreduced", action="store_true", help="switch off the reduction that the model has")
    parser.add_argument("--questions", metavar="JSON", help="VQA v2's official questions of a split without answers")
    parser.add_argument("-o", "--output", metavar="JSON", help="write the metrics to a file, as JSON")
    parser.add_argument("--submission", metavar="JSON", help="where to write the answers for the leaderboard")
    return parser


def write_submission(
    recipe: Recipe, model: PuMerPreTrainedModel | ReducedDecoder, rows: Dataset, collator: Any, path: Path
) -> None:
    """Answer questions, and write the file for the leaderboard of VQA v2: a list of `question_id` and `answer`."""
    if isinstance(model, ReducedDecoder):
        answers = [answer.text.strip() for answer in decoder_answers(recipe.training, model, rows, collator)]
    else:
        logits = predict(recipe.training, model, rows, collator).logits
        answers = [collator.labels[index] for index in logits.argmax(-1)]
    if recipe.training.process_index == 0:
        results = [
            {"question_id": number, "answer": answer}
            for number, answer in zip(rows["question_id"], answers, strict=True)
        ]
        write_json(path, results, indent=None)
        print(f"{len(results)} answers written to {path}")
