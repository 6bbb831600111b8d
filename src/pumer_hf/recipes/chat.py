"""Training of decoder models on questions about images: a model from scratch, or one that exists.

A recipe has the blocks `model`, `data` and `training`. The answers are generated for the evaluation.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    HfArgumentParser,
    PreTrainedModel,
    ProcessorMixin,
    TrainingArguments,
    set_seed,
)

from ..data.chat import ChatCollator
from ..data.several_questions import GroupedRows, SeveralQuestionsCollator
from ..data.task import TaskData
from ..data.vqa import VQA, VqaDataArguments
from ..folders import check_writable
from ..images import DataError
from ..models.loading import naming
from ..reading import parse_json
from ..results import PERCENT, Environment, Report, text_table
from ..training.checkpoints import SavedNames
from .generating import evaluate_answers, generated_answers
from .interrupt import ending_in_one_line
from .parser import flag_values, read_yaml, split_command
from .program import exit_on_user_error, program_name
from .recipe import check_values, field_names, nearest_name
from .report import metric_rows
from .small_llava import new_llava, resize_llava
from .stages import check_new_run, is_complete, last_complete_checkpoint
from .threads import use_available_cores

TASK = "chat"
"""What a recipe of this kind names as its `task`."""
TEACHER = "teacher"
"""The folder of the trained model in the output folder."""
FOR_ENCODERS = (
    *("max_text_length", "keep_aspect_ratio", "rand_augment", "streaming", "image_saliency"),
    *("min_answer_count", "answer_counting", "unknown_answers"),
)
"""Fields of the `data` block that decoder models do not have. The processor decides about text and images, and there
are no labels."""


@dataclass
class ChatModelArguments:
    """The `model` block: a checkpoint, or the configs of a small LLaVA from scratch."""

    _argument_group_name: ClassVar[str] = "model"

    checkpoint: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the decoder model to start from, with its processor."}
    )
    image_size: int | None = field(
        default=None,
        metadata={"help": "Side of the images in pixels, if it is not the checkpoint's. For LLaVA with CLIP's tower."},
    )
    vision_config: dict | str | None = field(
        default=None, metadata={"help": "CLIPVisionConfig fields (JSON, or a JSON file) of a LLaVA from scratch."}
    )
    text_config: dict | str | None = field(
        default=None, metadata={"help": "LlamaConfig fields (JSON, or a JSON file) of a LLaVA from scratch."}
    )
    image_mean: float = field(default=0.5, metadata={"help": "Pixel normalisation of a LLaVA from scratch."})
    image_std: float = field(default=0.5, metadata={"help": "Pixel normalisation of a LLaVA from scratch."})

    def __post_init__(self) -> None:
        for name in ("vision_config", "text_config"):
            value = getattr(self, name)
            value = parse_json(value, f"model.{name}") if isinstance(value, str) else value
            setattr(self, name, value)
            if value is not None and not isinstance(value, dict):
                raise ValueError(f"model.{name}={value!r}: must be a JSON object")
            if (value is None) == (self.checkpoint is None):
                raise ValueError(
                    f"model.checkpoint={self.checkpoint!r}, model.{name}={value!r}: give a checkpoint, or both "
                    "configs of a model from scratch"
                )
        if self.image_size is not None and self.checkpoint is None:
            raise ValueError(f"model.image_size={self.image_size}: is for a checkpoint: set it in vision_config")
        if self.image_std <= 0:
            raise ValueError(f"model.image_std={self.image_std}: must be above 0")


@dataclass
class ChatTrainingArguments(TrainingArguments):
    """The `training` block: transformers' [`~transformers.TrainingArguments`], and what a run adds."""

    _argument_group_name: ClassVar[str] = "training"

    output_dir: str | None = field(
        default="outputs/chat", metadata={"help": "Folder for the model (in teacher/) and results.json."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads columns by name."})
    max_new_tokens: int = field(
        default=8, metadata={"help": "The longest answer that is generated in the evaluation, in tokens."}
    )
    questions_per_image: int = field(
        default=1,
        metadata={
            "help": "Questions about one image that share a row of a training batch, so that the image is computed "
            "once. per_device_train_batch_size then counts images. For models such as LLaVA. 1: single rows."
        },
    )
    resume: bool = field(default=False, metadata={"help": "Continue an interrupted run at its last checkpoint."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # it only speeds up copies to a GPU, and torch warns
        for name in ("max_new_tokens", "questions_per_image"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name}={getattr(self, name)}: must be at least 1")


@dataclass(frozen=True)
class ChatRecipe:
    """A parsed recipe: three blocks."""

    model: ChatModelArguments
    data: VqaDataArguments
    training: ChatTrainingArguments


BLOCKS: dict[str, type] = {"model": ChatModelArguments, "data": VqaDataArguments, "training": ChatTrainingArguments}


def run_chat_recipe(default: str, arguments: list[str] | None = None) -> None:
    """Run a recipe: train a model and report its accuracy. If something is wrong, the program ends with one line.

    Args:
        default: the recipe that is used if the command line names none.
        arguments: `[FILE.yaml] [--flag value ...]`; default `sys.argv[1:]`.
    """
    with ending_in_one_line():
        with exit_on_user_error():
            recipe = parse_chat_recipe(Path(default), arguments)
            args = recipe.training
            check_new_run(cast(Any, args))
            check_writable(Path(str(args.output_dir)), "training.output_dir")
            data = VQA.load(replace(recipe.data, unknown_answers="ignore"), None)
            set_seed(args.seed)
            model, processor = first_chat_model(recipe.model, data)
        if args.device.type == "cpu":
            use_available_cores(args.world_size)
        with exit_on_user_error((DataError,)):
            train_chat(recipe, data, model, processor)
            report_chat(recipe, data, model, processor)


def parse_chat_recipe(default: Path, arguments: list[str] | None = None) -> ChatRecipe:
    """Read the command line of a recipe. The arguments are those of [`run_chat_recipe`].

    Raises:
        ValueError, FileNotFoundError: something is wrong; the message names the block, the key and the nearest right
        key.
    """
    named, flags = split_command(arguments)
    blocks = read_chat_blocks(named or default)
    parser = HfArgumentParser(
        list(BLOCKS.values()), allow_abbrev=False, prog=program_name(), usage="%(prog)s [FILE.yaml] [--flag value ...]"
    )
    for block in blocks.values():
        parser.set_defaults(**block)
    values = flag_values(parser, flags)
    recipe = ChatRecipe(
        **{name: kind(**{key: values[key] for key in field_names(kind)}) for name, kind in BLOCKS.items()}
    )
    for name in FOR_ENCODERS:
        if getattr(recipe.data, name) != VqaDataArguments.__dataclass_fields__[name].default:
            raise ValueError(f"data.{name}={getattr(recipe.data, name)!r}: is for encoder models: leave it out")
    return recipe


def read_chat_blocks(path: Path) -> dict[str, dict[str, Any]]:
    """Return the blocks of a recipe file, with checked keys.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no recipe of this kind.
    """
    blocks = read_yaml(path)
    if not isinstance(blocks, dict) or blocks.get("task") != TASK:
        raise ValueError(f"{path}: must have `task: {TASK}` and the blocks {', '.join(BLOCKS)}")
    for name in blocks:
        if name not in ("task", *BLOCKS):
            raise ValueError(f"{path}: unknown block '{name}': did you mean {nearest_name(name, [*BLOCKS])}?")
    return {name: check_values(name, blocks.get(name), kind) for name, kind in BLOCKS.items()}


def first_chat_model(args: ChatModelArguments, data: TaskData) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return the model before the training, and its processor. A model from scratch knows the words of the data."""
    if args.checkpoint is not None:
        with naming(f"model.checkpoint={args.checkpoint!r}", args.checkpoint, "model"):
            model = AutoModelForImageTextToText.from_pretrained(args.checkpoint)
            processor = AutoProcessor.from_pretrained(args.checkpoint)
        if args.image_size is not None:
            resize_llava(model, processor, args.image_size)
        return model, processor
    texts = [*data.train["question"], *(answer for answers in data.train["answers"] for answer in answers)]
    vision, text = cast(dict, args.vision_config), cast(dict, args.text_config)
    return new_llava(vision, text, texts, args.image_mean, args.image_std)


def train_chat(recipe: ChatRecipe, data: TaskData, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Train a model and save it with its processor in the folder `teacher`. With `resume`, do what is left."""
    folder = Path(str(recipe.training.output_dir)) / TEACHER
    args = replace(recipe.training, output_dir=str(folder))
    rows, collator = training_rows(data, processor, args.questions_per_image)
    trainer = SavedNames(model, args=args, train_dataset=rows, data_collator=collator, processing_class=processor)
    if is_complete(folder):
        trainer._load_from_checkpoint(str(folder))
        return
    checkpoint = last_complete_checkpoint(folder) if args.resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model()
    trainer.save_state()


def training_rows(data: TaskData, processor: ProcessorMixin, questions_per_image: int) -> tuple[Any, Any]:
    """Return the training data and their collator: single rows, or rows with several questions about their image."""
    collator = ChatCollator(processor, with_answers=True)
    if questions_per_image == 1:
        return data.train, collator
    return GroupedRows(data.train, questions_per_image), SeveralQuestionsCollator(collator)


def report_chat(recipe: ChatRecipe, data: TaskData, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Evaluate a model on the test data, and write and print the results."""
    args = recipe.training
    generate = partial(generated_answers, max_new_tokens=args.max_new_tokens, show=not args.disable_tqdm)
    answers = generate(model, ChatCollator(processor), data.test, batch_size=args.per_device_eval_batch_size)
    if args.process_index:
        return
    report = Report(
        evaluations={TEACHER: evaluate_answers(answers, data.test)},
        environment=Environment.current(),
        baselines={name: PERCENT.of(value) for name, value in VQA.baselines(data).items()},
    )
    table = text_table([["", TEACHER, ""], *metric_rows(report.evaluations)])
    print(table, report.finish(Path(str(args.output_dir)) / "results.json"), sep="\n")
