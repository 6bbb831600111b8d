"""What `recipes/evaluate.py` does: a trained model on a split, or its answers to questions without public answers."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from ..configuration import PuMerConfig
from ..data.arguments import DataArguments
from ..data.files import read_vqa_questions
from ..data.task import TaskData
from ..data.vqa import VQA
from ..models.base import PuMerPreTrainedModel
from .build import load_model
from .cards import TASKS
from .recipe import Recipe, exit_on_user_error, parse_recipe
from .run import evaluate
from .stages import predict
from .threads import use_available_cores


def evaluate_recipe(description: str, default: Path, arguments: Sequence[str] | None = None) -> None:
    """The main function of the script.

    Args:
        description: for `--help`.
        default: the recipe file to use when the command line names none.
        arguments: the command line; default `sys.argv[1:]`.
    """
    args, rest = build_parser(description).parse_known_args(arguments)
    task = TASKS[args.task]
    with exit_on_user_error():
        recipe = parse_recipe(task.arguments, default, [*([args.recipe] if args.recipe else []), *rest])
        if args.questions and (task is not VQA or not args.submission or not recipe.data.image_dir):
            raise ValueError("--questions is for the task vqa, and needs --submission and --image_dir")
        if args.submission and not args.questions:
            raise ValueError("--submission needs --questions, the official file with the questions to answer")
        saved = PuMerConfig.get_config_dict(args.model)[0].get("reduction")
        model = load_model(args.model, None if args.unreduced else saved, task)
        processor = AutoProcessor.from_pretrained(args.model)
        model = model.to(recipe.training.device)
        labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        if recipe.training.device.type == "cpu":
            use_available_cores(recipe.training.world_size)
        if args.questions:
            write_submission(recipe, model, processor, labels, args.questions, Path(args.submission))
            return
        data = task.load(without_training_data(recipe.data), labels)
        data = replace(data, test=getattr(data, args.split))
    report = evaluate(task, recipe.training, model, data, task.collator(processor, data, recipe.data, False))
    if args.split in data.missing_images:
        report["missing_images"] = data.missing_images[args.split]
    if recipe.training.process_index == 0:
        print(json.dumps({"model": args.model, "task": task.name, "split": args.split, **report}))


def build_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of the script itself; all others are those of a recipe."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="for its data block; default: digit scenes")
    parser.add_argument("--model", required=True, help="a trained model: folder or Hub id")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--unreduced", action="store_true", help="switch off the reduction that the model has")
    parser.add_argument("--questions", metavar="JSON", help="VQA v2's official questions of a split without answers")
    parser.add_argument("--submission", metavar="JSON", help="where to write the answers for the leaderboard")
    return parser


def without_training_data(args: Any) -> DataArguments:
    """The data arguments with as little training data as they allow: evaluation does not use them."""
    if args.dataset is not None:
        return replace(args, train_split=args.validation_split, streaming=False)
    return replace(args, train_file=args.validation_file, train_scenes=1)


def write_submission(
    recipe: Recipe,
    model: PuMerPreTrainedModel,
    processor: Any,
    labels: Sequence[str],
    questions: str,
    path: Path,
) -> None:
    """Answer questions and write what VQA v2's leaderboard takes: a list of `question_id` and `answer`."""
    rows = read_vqa_questions(questions, recipe.data.image_dir)
    data = TaskData(rows, rows, rows, tuple(labels))
    logits, _ = predict(recipe.training, model, rows, VQA.collator(processor, data, recipe.data, False))
    answers = [labels[index] for index in logits.argmax(-1)]
    if recipe.training.process_index == 0:
        results = [
            {"question_id": number, "answer": answer}
            for number, answer in zip(rows["question_id"], answers, strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results), encoding="utf-8")
        print(f"{len(results)} answers written to {path}")
