"""The plan that a recipe prints before it trains: the model, its inputs, the data, and the steps of each stage."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from transformers import ProcessorMixin, TrainerState
from transformers.trainer_utils import SaveStrategy

from ..data.arguments import SPLITS, DataArguments
from ..data.task import Task, TaskData
from ..inputs import image_side, longest_side
from ..metrics.vqa import normalize_answer
from ..models.encoders.base import PuMerPreTrainedModel
from ..reducers import ReductionConfig
from .pretraining import is_pretrained
from .recipe import OF_STUDENT, SCORER_STAGE, Recipe, RecipeTrainingArguments
from .scorer import RESULTS_NAME
from .stages import STATE_NAME, is_complete, last_complete_checkpoint

MAX_LABELS = 3
"""The number of labels of a split that are named, the most frequent first."""
TEXTS_AT_ONCE = 10_000


def run_plan(
    task: Task, recipe: Recipe, data: TaskData, model: PuMerPreTrainedModel, processor: ProcessorMixin
) -> str:
    """Return the plan of a run as a text table.

    Args:
        task: the task to train for.
        recipe: the recipe, with the flags of the command line.
        data: the loaded data.
        model: the unreduced model, before any training.
        processor: its processor.
    """
    rows = None if recipe.data.streaming else len(data.train)
    lines = [
        ("model", model_words(recipe, model)),
        *([("reduction", reduction_words(recipe))] if recipe.has_student else []),
        ("pictures", picture_words(recipe, processor)),
        ("texts", text_words(recipe)),
        *((split, split_words(task, recipe, data, split, processor)) for split in SPLITS),
        *stage_lines(recipe, rows),
        ("checkpoints", checkpoint_words(recipe.training)),
        ("results", f"{Path(recipe.training.output_dir) / 'results.json'}, when all is done"),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(["Plan of this run:", *(f"  {name.ljust(width)}  {words}" for name, words in lines)])


def trained_stages(recipe: Recipe) -> list[str]:
    """The stages that a run trains, in order."""
    args = recipe.training
    trained = {
        "pretraining": is_pretrained(recipe),
        "teacher": recipe.model.teacher is None,
        "reducer": args.reducer_training is not None and recipe.has_student,
        "student": recipe.has_student and args.max_steps != 0,
    }
    return [name for name, is_trained in trained.items() if is_trained]


def stage_lines(recipe: Recipe, rows: int | None) -> list[tuple[str, str]]:
    """Return the name of each stage and what it does, in order. `rows`: as in [`stage_words`]."""
    shared = [name for name in trained_stages(recipe) if name not in OF_STUDENT]
    lines = [(name, stage_words(recipe, name, rows)) for name in shared]
    for one in recipe.students():
        own = {name: stage_words(one, name, rows) for name in trained_stages(one) if name in OF_STUDENT}
        if one.untrained_scorer is not None:
            own = {SCORER_STAGE: scorer_words(one), **own}
        if one.training.max_steps == 0:
            own["student"] = "the teacher with the reduction; it is not trained (training.max_steps: 0)"
        lines += [(one.stage_folder(name).name, words) for name, words in own.items()]
    return lines


def scorer_words(recipe: Recipe) -> str:
    """Say how the scorer is trained."""
    args = recipe.scorer_arguments()
    folder = Path(str(args.output_dir))
    if recipe.training.resume and (folder / RESULTS_NAME).is_file():
        return f"is complete in {folder}, so it is skipped"
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return f"{args.max_steps:,} steps of {batch:,} rows, learning rate {args.learning_rate:g}; the teacher is frozen"


def model_words(recipe: Recipe, model: PuMerPreTrainedModel) -> str:
    """Say which model it is, and where its weights come from."""
    if recipe.model.teacher:
        weights = f"finetuned weights from {recipe.model.teacher}, which stay as they are"
    elif recipe.model.checkpoint and recipe.model.is_decoder:
        weights = f"pretrained weights from {recipe.model.checkpoint}"
    elif recipe.model.checkpoint:
        head = "its head is new, unless the checkpoint has a head for these labels"
        weights = f"pretrained weights from {recipe.model.checkpoint}; {head}"
    else:
        weights = "random weights: it learns from scratch (model.checkpoint names a pretrained one)"
    config = model.config.get_text_config() if recipe.model.is_decoder else model.config
    size = f"{config.num_hidden_layers} layers, {config.hidden_size} wide"
    adapted = "" if recipe.model.lora is None else "; low-rank adapters learn, which then become a part of them"
    return f"{type(model).__name__} ({size}), {weights}{adapted}"


def reduction_words(recipe: Recipe) -> str:
    """Say how the student differs from the teacher."""
    size = recipe.model.image_size
    smaller = [] if size is None else [f"images of {size} x {size} pixels"]
    parts = ["none"] if recipe.schedule is None else [part_words(part) for part in recipe.schedule.parts]
    met = [] if recipe.budget is None else [f"{recipe.budget['spent']:.3f} of the unreduced multiply-adds"]
    elastic = recipe.training.elastic
    scaled = [] if elastic is None else ["of which each training step uses a part from {:g} to {:g}".format(*elastic)]
    return ", ".join([*parts, *met, *smaller, *scaled])


def part_words(part: ReductionConfig) -> str:
    """Say what one part of a schedule does, and where."""
    values = part.to_dict()
    if part.site == "inputs":
        where = "before the first layer"
    else:
        where = f"in layers {list(part.layers)}" if part.layers else "in every layer"
        where += "" if part.site == "layers" else f" of the site {part.site!r}"
    shown = [name for name in (*part.ratios, "num_keep", "min_keep", "max_keep") if name in values]
    return ", ".join([f"{part.method} {where}", *(f"{name}={values[name]}" for name in shown)])


def text_words(recipe: Recipe) -> str:
    """Say how texts become inputs."""
    if recipe.model.is_decoder:
        return "a prompt with a picture and a question, as the processor makes it; none is cut"
    return f"{recipe.data.max_text_length} tokens; what is longer is cut there"


def picture_words(recipe: Recipe, processor: ProcessorMixin) -> str:
    """Say how pictures become inputs."""
    if recipe.model.is_decoder:
        return "as the processor makes them"
    side = image_side(processor)
    if recipe.data.keep_aspect_ratio:
        longest = longest_side(processor)
        made = f"{side} pixels on the shorter side, at most {longest} on the longer one: their shape is kept"
    elif processor.image_processor.do_center_crop:
        made = f"{side} x {side} pixels, the middle of each picture"
    else:
        made = f"{side} x {side} pixels: each picture becomes a square"
    return f"{made}; those to train on are changed by RandAugment" if recipe.data.rand_augment else made


def split_words(task: Task, recipe: Recipe, data: TaskData, split: str, processor: ProcessorMixin) -> str:
    """Describe the rows of a split: number, source, labels, how many texts are cut, and what is left out."""
    args: DataArguments = recipe.data
    if split == "test" and split not in args.needed_splits:
        return "the validation rows"
    if split == "train" and args.streaming:
        return f"streamed from {args.dataset}, so their number is not known, nor how many texts are cut"
    rows: Dataset = getattr(data, split)
    facts = [f"{len(rows):,} rows {source_words(args, split)}", *label_words(rows, data.labels)]
    if "captions" in rows.column_names:  # the training split has a row per caption
        number = len(rows) if split == "train" else sum(map(len, rows["captions"]))
        facts.append(f"{number:,} captions")
    if not recipe.model.is_decoder:
        texts = task.texts(rows)
        cut = number_cut(processor, texts, args.max_text_length)
        facts.append(f"{with_percent(cut, len(texts))} of the texts are cut" if cut else "no text is cut")
    left_out = {
        "without a label are left out": data.unlabelled,
        "whose image is missing are left out": data.missing_images,
        "without a known answer " + ("are left out" if split == "train" else "count as wrong"): data.unknown_answers,
    }
    facts += [f"{number:,} rows {what}" for what, counts in left_out.items() if (number := counts.get(split, 0))]
    return "; ".join(facts)


def source_words(args: DataArguments, split: str) -> str:
    """Say where a split is from."""
    if args.dataset is not None:
        return f"of {args.dataset}, {args.split_name(split)}"
    return f"of {', '.join(args.files(split) or [])}" if args.has_files else "of digit scenes"


def label_words(rows: Dataset, labels: Sequence[str]) -> list[str]:
    """Name the labels of a split, the most frequent first; [] for a task without labels.

    Without `labels` they are the answers that annotators gave.
    """
    given: Iterable[str]
    if "label" in rows.column_names:
        given = (label.lower() for label in rows["label"])
    elif "answers" in rows.column_names:
        given = (Counter(map(normalize_answer, answers)).most_common(1)[0][0] for answers in rows["answers"])
    else:
        return []
    counts = Counter(given)
    named = ", ".join(f"{label!r} {number / len(rows):.0%}" for label, number in counts.most_common(MAX_LABELS))
    number = f"{len(labels):,} labels" if labels else f"{len(counts):,} answers"
    return [f"{number}, {'most often ' if len(counts) > MAX_LABELS else ''}{named}"]


def number_cut(processor: Any, texts: Sequence[str], length: int) -> int:
    """Count the texts with more than `length` tokens."""
    counts = Counter(texts)
    unique = list(counts)
    number = 0
    for start in range(0, len(unique), TEXTS_AT_ONCE):
        block = unique[start : start + TEXTS_AT_ONCE]
        tokens = processor.tokenizer(block, truncation=True, max_length=length + 1)["input_ids"]
        number += sum(counts[text] for text, ids in zip(block, tokens, strict=True) if len(ids) > length)
    return number


def with_percent(number: int, total: int) -> str:
    """Return a number with its percent of a total: `"12 (0.4 %)"`."""
    return f"{number:,} ({100 * number / total:.2g} %)"


def stage_lengths(recipe: Recipe, rows: int | None) -> dict[str, str]:
    """Say how long each stage of a run trains at most, by the name of its folder.

    `rows` is the number of training rows; None for a stream.
    """
    return {
        one.stage_folder(name).name: length_words(one.stage(name), None if name == "pretraining" else rows)
        for one in recipe.students() or [recipe]
        for name in trained_stages(one)
    }


def length_words(args: RecipeTrainingArguments, rows: int | None) -> str:
    """Return `"at most 800 steps"`, or the epochs if the steps are not known."""
    steps = planned_steps(args, rows)
    most = "at most " if args.early_stopping_patience else ""
    return f"{most}{args.num_train_epochs:g} epochs" if steps is None else f"{most}{steps:,} steps"


def stage_words(recipe: Recipe, name: str, rows: int | None) -> str:
    """Say how many steps a stage has, and how many are done. `rows`: number of training rows; None for a stream."""
    args = recipe.stage(name)
    folder = Path(args.output_dir)
    if args.resume and is_complete(folder):
        return f"is complete in {folder}, so it is skipped"
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    rows = None if name == "pretraining" or args.questions_per_image > 1 else rows
    steps = planned_steps(args, rows)
    epochs = f" ({steps / steps_per_epoch(args, rows):.3g} epochs)" if steps is not None and rows is not None else ""
    kind = "rows" if args.questions_per_image == 1 else f"images with up to {args.questions_per_image} questions"
    words = f"{length_words(args, rows)}{epochs} of {batch:,} {kind}, learning rate {args.learning_rate:g}"
    checkpoint = last_complete_checkpoint(folder) if args.resume else None
    if checkpoint is None:
        return words
    done = TrainerState.load_from_json(str(checkpoint / STATE_NAME)).global_step
    return f"{words}; goes on after step {done:,}"


def planned_steps(args: RecipeTrainingArguments, rows: int | None) -> int | None:
    """Return the optimizer steps of a stage with `rows` training rows, as the Trainer counts them.

    It is None if the steps depend on the number of rows and this is not known.
    """
    if args.max_steps > 0:
        return args.max_steps
    return None if rows is None else ceil(args.num_train_epochs * steps_per_epoch(args, rows))


def steps_per_epoch(args: RecipeTrainingArguments, rows: int) -> int:
    """Return the optimizer steps of an epoch, as the Trainer counts them."""
    rounded = (lambda value, by: value // by) if args.dataloader_drop_last else (lambda value, by: -(-value // by))
    batches = rounded(rounded(rows, args.train_batch_size), args.world_size)
    return max(ceil(batches / args.gradient_accumulation_steps), 1)


def checkpoint_words(args: RecipeTrainingArguments) -> str:
    """Say when checkpoints are saved."""
    if args.save_strategy == SaveStrategy.NO:
        return "none (training.save_strategy): a stage that is stopped begins anew"
    steps = f"every {args.save_steps:,} steps" if args.save_steps >= 1 else f"every {args.save_steps:.0%} of the steps"
    kinds = {
        SaveStrategy.STEPS: steps,
        SaveStrategy.EPOCH: "after each epoch",
        SaveStrategy.BEST: "at a better metric",
    }
    clock = [f"every {args.save_minutes:g} minutes"] if args.save_minutes else []
    return " and ".join([kinds[cast(SaveStrategy, args.save_strategy)], *clock])
