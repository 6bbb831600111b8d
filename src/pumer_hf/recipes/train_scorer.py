"""`pumer-hf train-scorer`: train the scorer of `lookahead` for a saved model, on images with texts."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import AutoProcessor, ProcessorMixin

from ..data.chat import ChatCollator
from ..data.messages import MESSAGES, read_chats
from ..data.pairs import SCENES, PairCollator, hold_out, read_pairs
from ..inputs import Encoder
from ..models.bases import base_of
from ..models.decoder_loading import is_decoder, load_decoder
from ..models.loading import load_checkpoint, naming
from ..reducers import parse_method
from ..reducers.lookahead import ALL_LAYERS, LookaheadReductionConfig
from ..training.scorer import ScorerTrainingArguments
from .interrupt import ending_in_one_line
from .program import leaving_group
from .recipe import check_values
from .scorer import RESULTS_NAME, ScorerData, check_folder, train_scorer
from .threads import use_available_cores

AUTO = "auto"
"""The target that is found by trying each."""
KEEP_RATIO = 0.2
"""The part of the patches that the record of a scorer names. The user of the scorer chooses another."""


@dataclass(frozen=True)
class ScorerOptions:
    """What the flags of `pumer-hf train-scorer` say."""

    model: str
    data: str
    out: str | None = None
    site: str = "inputs"
    layers: list[int] | None = None
    target_layer: str = AUTO
    form: str = "gated"
    rank: int = 64
    diversity: str = "dpp"
    p: float = 0.25
    steps: int = 2000
    answer_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    image_column: str = "image"
    text_column: str | None = None
    split: str = "train"
    max_examples: int | None = None
    eval_examples: int = 500
    training: dict[str, Any] = field(default_factory=dict)
    """Other fields of [`ScorerTrainingArguments`]."""
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_examples", "max_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        if self.answer_steps < 0:
            raise ValueError(f"--answer-steps {self.answer_steps}: must be at least 0")
        if self.target_layer not in (AUTO, ALL_LAYERS) and not self.target_layer.isdigit():
            raise ValueError(
                f"--target-layer {self.target_layer}: give {AUTO!r}, {ALL_LAYERS!r} or the index of a layer"
            )

    @property
    def folder(self) -> str:
        """The folder of the scorer."""
        return self.out or f"outputs/{Path(self.model).name}-lookahead"

    def part(self) -> LookaheadReductionConfig:
        """Return the part of the schedule that the scorer is for."""
        target: int | str | None = None if self.target_layer == AUTO else self.target_layer
        if self.target_layer.isdigit():
            target = int(self.target_layer)
        config = parse_method(
            {
                "method": "lookahead",
                "site": self.site,
                "layers": self.layers or (),
                "keep_ratio": KEEP_RATIO,
                "form": self.form,
                "rank": self.rank,
                "diversity": None if self.diversity == "none" else self.diversity,
                "p": self.p,
                "target_layer": target,
            }
        )
        assert isinstance(config, LookaheadReductionConfig), "the method is lookahead"
        return config

    def arguments(self) -> ScorerTrainingArguments:
        """Return the arguments of the training."""
        values = {
            "output_dir": self.folder,
            "max_steps": self.steps,
            "answer_steps": self.answer_steps,
            "per_device_train_batch_size": self.batch_size,
            "per_device_eval_batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }
        return ScorerTrainingArguments(
            **{**values, **check_values("--training", self.training, ScorerTrainingArguments)}
        )


@leaving_group()
def run_train_scorer(options: ScorerOptions) -> None:
    """Do the work of the command. Ctrl-C and SIGTERM end it with one line.

    Raises:
        ValueError, OSError: a value, a file or the model is wrong; the message names it.
    """
    with ending_in_one_line():
        folder = Path(options.folder)
        part, args = options.part(), options.arguments()
        check_folder(folder, options.resume)
        launched = args.world_size > 1  # a launcher sets OMP_NUM_THREADS to 1; otherwise the user has set it
        if args.device.type == "cpu" and (launched or "OMP_NUM_THREADS" not in os.environ):
            use_available_cores(args.world_size)
        model, data = decoder_and_data(options) if is_decoder(options.model) else encoder_and_data(options)
        base = base_of(model, args.target())
        base.check_answers()
        base.check(part)
        if part.target_layer not in (None, ALL_LAYERS, *base.layers):
            known = ", ".join(map(str, base.layers))
            raise ValueError(f"--target-layer {part.target_layer}: the model has layers {known}")
        if args.process_index == 0:
            print(f"Training on {data.words}; {len(data.held_out):,} more are held out for the comparison.")
        train_scorer(model, part, data, args, resume=options.resume)
        if args.process_index == 0:
            print(*last_lines(options, folder), sep="\n")


def encoder_and_data(options: ScorerOptions) -> tuple[nn.Module, ScorerData]:
    """Load the encoder of the command, and its data."""
    model, processor = load_checkpoint(options.model, reduction=None)
    collator = PairCollator(Encoder.of(model, processor))
    return model, scorer_data(options, model.config.image_size, collator)


def decoder_and_data(options: ScorerOptions) -> tuple[nn.Module, ScorerData]:
    """Load the decoder of the command, and its data. The processor makes the prompts, by its chat template."""
    model = load_decoder(options.model, reduction=None)
    with naming(repr(options.model), options.model, "processor"):
        processor = AutoProcessor.from_pretrained(options.model, trust_remote_code=False)
    collator = ChatCollator(processor)
    if options.text_column in (None, MESSAGES) and not is_pairs(options.data):
        chats = read_chats(options.data, split=options.split, image_column=options.image_column)
        if chats is not None:
            check_template(processor, options.model)
            number = chats.without_image
            left_out = f" ({number:,} without an image {'is' if number == 1 else 'are'} left out)" if number else ""
            return model, held_out_data(options, chats.rows, collator, left_out)
    image_size = getattr(model.config.vision_config, "image_size", None)  # some take images of any size
    data = scorer_data(options, image_size if isinstance(image_size, int) else None, collator)
    train, held_out = (rows.rename_column("text", "question") for rows in (data.train, data.held_out))
    return model, replace(data, train=train, held_out=held_out)


def is_pairs(source: str) -> bool:
    """Return whether data are of a kind that holds no chats: digit scenes, and files but JSON lines."""
    suffix = Path(source).suffix.lower()
    is_other_file = suffix == ".csv" or (Path(source).is_file() and suffix != ".jsonl")
    return source.partition(":")[0] == SCENES or is_other_file


def check_template(processor: ProcessorMixin, source: str) -> None:
    """Raise `ValueError` if a processor cannot write the prompt of a chat."""
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"{source}: the processor has no chat template: give it one, or data with images and questions"
        )


def scorer_data(options: ScorerOptions, image_size: int | None, collator: Any) -> ScorerData:
    """Read the data of the command, and hold out some rows."""
    number = None if options.max_examples is None else options.max_examples + options.eval_examples
    rows = read_pairs(
        options.data,
        image_column=options.image_column,
        text_column=options.text_column,
        split=options.split,
        image_size=image_size,
        number=number,
    )
    return held_out_data(options, rows, collator)


def held_out_data(options: ScorerOptions, rows: Dataset, collator: Any, note: str = "") -> ScorerData:
    """Hold out some rows. `note` is added to the data in words."""
    train, held_out = hold_out(rows, options.eval_examples, options.max_examples, options.seed)
    return ScorerData(train, held_out, collator, f"{len(train):,} examples of {options.data}{note}")


def last_lines(options: ScorerOptions, folder: Path) -> list[str]:
    """Return the lines that say where the scorer is, and how to use it."""
    part = {"method": "lookahead", "site": options.site, "keep_ratio": KEEP_RATIO, "weights": str(folder)}
    if options.layers:
        part |= {"layers": options.layers}
    return [f"The scorer is in {folder}, its table in {folder / RESULTS_NAME}. To use it: reduction={part}"]
