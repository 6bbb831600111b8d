"""A recipe: its blocks `model`, `reduction`, `data` and `training`, and what each may hold. `parser.py` reads it."""

from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, cast, get_args, get_type_hints

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..models.families import DECODERS, FAMILIES, decoder_advice
from ..reading import parse_json
from ..reducers import PlainSchedule, Schedule, parse_reduction
from ..reducers.lookahead import LookaheadReductionConfig
from ..training.arguments import DistillationTrainingArguments
from ..training.callbacks import check_factors
from ..training.scorer import ScorerTrainingArguments

STAGES = ("pretraining", "teacher", "reducer", "student")
"""The stages of a run, in order. Each has a folder of its own. Most runs leave some out."""

SCORER_STAGE = "scorer"
"""The folder of the training of a scorer, which comes between teacher and student."""
OF_STUDENT = (SCORER_STAGE, "reducer", "student")
"""The stages that each student has of its own, if a run trains several."""
ENCODERS_ONLY, DECODERS_ONLY = ("image_size",), ("checkpoint_image_size", "lora")
"""Fields of the `model` block that are for one kind of models."""
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Fields of `training` that newer versions of transformers call otherwise. Recipes have the names of all versions."""
SCORER_INHERITS = ("seed", "use_cpu", "bf16", "fp16", "report_to", "disable_tqdm", "dataloader_num_workers")
"""The training arguments of a recipe that the training of its scorer takes over."""


@dataclass
class ModelArguments:
    """The `model` block of a recipe."""

    _argument_group_name: ClassVar[str] = "model"

    backbone: str = field(
        default="vilt",
        metadata={"help": f"Model family: the encoders {', '.join(FAMILIES)}; the decoders {', '.join(DECODERS)}."},
    )
    checkpoint: str | None = field(
        default=None, metadata={"help": "Pretrained checkpoint (Hub id or folder) that the teacher starts from."}
    )
    teacher: str | None = field(
        default=None, metadata={"help": "Finetuned teacher checkpoint (Hub id or folder); skips the teacher stage."}
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the student's images in pixels, smaller than the teacher's. This is the baseline of a "
            "smaller resolution, with or without a reduction. Default: the teacher's."
        },
    )
    config: dict | str | None = field(
        default=None,
        metadata={"help": "Model config fields (JSON, or a JSON file) of a teacher that starts from scratch."},
    )
    image_mean: float = field(default=0.5, metadata={"help": "Pixel normalisation of a teacher from scratch."})
    image_std: float = field(default=0.5, metadata={"help": "Pixel normalisation of a teacher from scratch."})
    checkpoint_image_size: int | None = field(
        default=None,
        metadata={"help": "Side of all images in pixels, if it is not the checkpoint's. For LLaVA with CLIP's tower."},
    )
    lora: dict | str | None = field(
        default=None,
        metadata={
            "help": "Fields of peft's LoraConfig (JSON, or a JSON file): in each stage adapters of a decoder learn, "
            "and not its weights. At the end of the stage they become a part of the weights."
        },
    )

    def __post_init__(self) -> None:
        self.config = _as_dict("model.config", self.config)
        self.lora = _as_dict("model.lora", self.lora)
        known = {**FAMILIES, **DECODERS}
        if self.backbone not in known:
            choices = ", ".join(map(repr, known))
            note = "" if DECODERS else f"; {decoder_advice()}"
            raise ValueError(f"model.backbone={self.backbone!r}: choose one of {choices}{note}")
        if self.image_std <= 0:
            raise ValueError(f"model.image_std={self.image_std}: must be above 0")
        kind, others = ("decoder", ENCODERS_ONLY) if self.is_decoder else ("encoder", DECODERS_ONLY)
        for name in others:
            if getattr(self, name) is not None:
                raise ValueError(f"model.{name}={getattr(self, name)!r}: is not for {kind} models: leave it out")
        if self.checkpoint_image_size is not None and self.checkpoint is None:
            raise ValueError(
                f"model.checkpoint_image_size={self.checkpoint_image_size}: is for a checkpoint: give model.checkpoint"
            )

    @property
    def is_decoder(self) -> bool:
        """Whether it is a decoder model, which answers in words."""
        return self.backbone in DECODERS


@dataclass
class RecipeTrainingArguments(DistillationTrainingArguments):
    """The `training` block of a recipe: how the student trains, and what is different for the teacher."""

    _argument_group_name: ClassVar[str] = "training"

    output_dir: str = field(
        default="outputs/vqa", metadata={"help": "Folder for the teacher, the student and results.json."}
    )
    teacher_training: dict | str | None = field(
        default=None,
        metadata={"help": "Training arguments (JSON, or a JSON file) that are different in the teacher stage."},
    )
    reducer_training: dict | str | None = field(
        default=None,
        metadata={
            "help": "Training arguments (JSON, or a JSON file) that are different in a first stage of the student. "
            "In it only the reducers and the classifier learn, without TiP's continuity loss. Default: no such stage."
        },
    )
    pretraining: dict | str | None = field(
        default=None,
        metadata={
            "help": "Training arguments (JSON, or a JSON file) that are different in a first stage. In it a model "
            "from scratch learns to answer questions about digit scenes. It is for recipes on digit scenes. Default: "
            "no such stage."
        },
    )
    scorer_training: dict | str | None = field(
        default=None,
        metadata={
            "help": "Arguments (JSON, or a JSON file) of the training of lookahead's scorer, which comes before the "
            "student. They are fields of ScorerTrainingArguments."
        },
    )
    seeds: int = field(
        default=1,
        metadata={
            "help": "Train this many students from one teacher, with the seeds seed, seed + 1 and so on. The results "
            "have their mean and range. All but the first have folders such as student-seed1, and are not pushed."
        },
    )
    train_scorer: bool = field(
        default=False,
        metadata={"help": "Let the scorer of lookahead learn on with the student. Default: it stays as it is."},
    )
    early_stopping_patience: int = field(
        default=0,
        metadata={"help": "Stop after this many evaluations without a better metric; 0: never. Needs eval_strategy."},
    )
    reduction_warmup_steps: int = field(
        default=0, metadata={"help": "Ramp the reduction ratios up over this many steps of the student."}
    )
    elastic: list[float] | None = field(
        default=None,
        metadata={
            "help": "Train one student for a range of speeds: the least and the most factor, in [0, 1], by which each "
            "step multiplies the ratios of the reduction, such as 0 1. Evaluations in the training have all of the "
            "reduction. Default: all of it in each step."
        },
    )
    cache_teacher_logits: bool = field(
        default=False, metadata={"help": "Compute the teacher's logits once and keep them on disk."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Our collators read columns by name."})
    max_new_tokens: int = field(
        default=8,
        metadata={"help": "The longest answer that a decoder generates in the evaluation, in tokens with its end."},
    )
    questions_per_image: int = field(
        default=1,
        metadata={
            "help": "Questions about one image that share a row of a training batch of an unreduced decoder, so that "
            "the image is computed once. per_device_train_batch_size then counts images. For models such as LLaVA. "
            "1: single rows."
        },
    )
    benchmark_seconds: float = field(
        default=10.0, metadata={"help": "How long to measure the throughput of teacher and student."}
    )
    save_minutes: float = field(
        default=5.0,
        metadata={
            "help": "Save a checkpoint for --resume this many minutes after the last one, in addition to those of "
            "save_strategy; 0: never. It is removed once there is a newer one."
        },
    )
    resume: bool = field(
        default=False,
        metadata={"help": "Continue an interrupted run: skip finished stages, go on in the unfinished one."},
    )

    def __post_init__(self) -> None:
        for old, new in RENAMED.items():
            if new in field_names(type(self)) and getattr(self, new) is None:
                setattr(self, new, getattr(self, old))
        super().__post_init__()
        recipe_stages = dict.fromkeys(("teacher_training", "reducer_training", "pretraining"), RecipeTrainingArguments)
        for name, kind in {**recipe_stages, "scorer_training": ScorerTrainingArguments}.items():
            values = _as_dict(f"training.{name}", getattr(self, name))
            setattr(self, name, None if values is None else check_values(f"training.{name}", values, kind))
        if self.resume_from_checkpoint is not None:
            raise ValueError(
                "training.resume_from_checkpoint is not for recipes, which have several stages: use resume"
            )
        self._check_numbers()
        if vars(self).get("enable_jit_checkpoint"):  # some versions of transformers have it
            raise ValueError(
                "training.enable_jit_checkpoint is not for recipes, since a stopped stage would count as finished; "
                "SIGTERM ends a recipe as Ctrl-C does, so leave it out"
            )
        for name in self.report_to or ():
            if name not in INTEGRATION_TO_CALLBACK:
                nearest = nearest_name(name, [*INTEGRATION_TO_CALLBACK, "all", "none"])
                raise ValueError(f"training.report_to={name!r}: did you mean {nearest}?")

    def _check_numbers(self) -> None:
        for name in ("max_new_tokens", "questions_per_image", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name}={getattr(self, name)}: must be at least 1")
        if self.early_stopping_patience < 0:
            raise ValueError(f"training.early_stopping_patience={self.early_stopping_patience}: must be at least 0")
        if self.early_stopping_patience and not self.load_best_model_at_end:
            raise ValueError("training.early_stopping_patience needs load_best_model_at_end and an eval_strategy")
        if self.reduction_warmup_steps < 0:
            raise ValueError(f"training.reduction_warmup_steps={self.reduction_warmup_steps}: must be at least 0")
        if self.elastic is not None:
            check_factors(self.elastic, "training.elastic")
            if self.reduction_warmup_steps:
                raise ValueError(
                    f"training.reduction_warmup_steps={self.reduction_warmup_steps} and "
                    f"training.elastic={self.elastic}: both change the ratios of a step: leave one out"
                )
        if self.save_minutes < 0:
            raise ValueError(f"training.save_minutes={self.save_minutes}: must be at least 0")


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe: four blocks."""

    model: ModelArguments
    reduction: PlainSchedule | None
    data: Any
    training: RecipeTrainingArguments
    training_values: dict[str, Any]
    """The values that `training` was made from."""
    budget: dict[str, Any] | None = None
    """For what the ratios of `reduction` were found, if it had a budget ([`Budget`])."""
    fitted: tuple[str, ...] = ()
    """Fields of `training` that are adapted to the number of rows, once the data are loaded."""
    seed_offset: int = 0
    """By how much the seed of the student is above `training.seed`. It is 0 for the first student ([`students`])."""

    @cached_property
    def schedule(self) -> Schedule | None:
        """The parsed schedule of `reduction`."""
        return parse_reduction(self.reduction)

    @property
    def untrained_scorer(self) -> LookaheadReductionConfig | None:
        """The part of the schedule whose scorer the run trains: one of `lookahead` without `weights`."""
        for part in self.schedule.parts if self.schedule else ():
            if isinstance(part, LookaheadReductionConfig) and part.weights is None:
                return part
        return None

    def scorer_arguments(self) -> ScorerTrainingArguments:
        """Return the training arguments of the scorer, with a folder of its own."""
        values = {name: self.training_values[name] for name in SCORER_INHERITS if name in self.training_values}
        changes = cast("dict | None", self.training.scorer_training) or {}
        values = self._of_student({**values, **changes})
        return ScorerTrainingArguments(**{**values, "output_dir": str(self.stage_folder(SCORER_STAGE))})

    @property
    def has_student(self) -> bool:
        """Whether a student is trained, which has a reduction or smaller images."""
        return self.reduction is not None or self.model.image_size is not None

    @property
    def seed(self) -> int:
        """The seed of the student."""
        return self.training.seed + self.seed_offset

    def students(self) -> list["Recipe"]:
        """Return the recipe of each student that the run trains. They differ only by the seed and by the folders."""
        number = self.training.seeds if self.has_student else 0
        return [replace(self, seed_offset=offset) for offset in range(number)]

    def stage_folder(self, name: str) -> Path:
        """Return the folder of a stage. A student that is not the first has its seed in the name."""
        own = self.seed_offset and name in OF_STUDENT
        return Path(self.training.output_dir) / (f"{name}-seed{self.seed}" if own else name)

    def _of_student(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a stage with the seeds of the student."""
        seeds = {"seed": values.get("seed", self.training.seed), "data_seed": values.get("data_seed")}
        later = {name: seed + self.seed_offset for name, seed in seeds.items() if seed is not None}
        return {**values, **later} if self.seed_offset else values

    def stage(self, name: str) -> RecipeTrainingArguments:
        """Return the training arguments of a stage, with the stage's own folder."""
        changes = {
            "pretraining": self.training.pretraining,
            "teacher": self.training.teacher_training,
            "reducer": self.training.reducer_training,
        }
        values = {**self.training_values, **(cast("dict | None", changes.get(name)) or {})}
        if name in OF_STUDENT:
            values = self._of_student(values)
        return RecipeTrainingArguments(**{**values, "output_dir": str(self.stage_folder(name))})


def check_reporters(args: RecipeTrainingArguments) -> None:
    """Raise `ImportError` if a reporter of these arguments is not installed."""
    # Transformers does not look for the last two.
    installed = {*get_available_reporting_integrations(), "azure_ml", "flyte"}
    for name in args.report_to or ():
        if name not in installed:
            raise ImportError(
                f"training.report_to={name!r}: its package is not installed: pip install {name}, or set it to none"
            )


def check_values(block: str, values: dict[str, Any] | None, dataclass_type: type) -> dict[str, Any]:
    """Return the values of a block, checked against the fields of its dataclass.

    Strings in fields for numbers become numbers, since yaml reads `1e-3` as a string.

    Raises:
        ValueError: a key is not a field, or a value does not have the type of its field. Only plain types are checked.
    """
    known = field_names(dataclass_type)
    for name in values or {}:
        if name not in known:
            raise ValueError(f"unknown key '{name}' in the block '{block}': did you mean {nearest_name(name, known)}?")
    hints, checked = get_type_hints(dataclass_type), dict(values or {})
    for name, value in checked.items():
        kinds = set(get_args(hints[name]) or (hints[name],))
        if not kinds <= {int, float, bool, str, NoneType} or type(value) in kinds:
            continue
        if float in kinds and type(value) in (int, str):
            with suppress(ValueError):
                checked[name] = float(value)
        if type(checked[name]) not in kinds:
            names = " or ".join(sorted("null" if kind is NoneType else kind.__name__ for kind in kinds))
            raise ValueError(f"{block}.{name}={value!r}: must be {names}")
    return checked


def field_names(dataclass_type: type) -> list[str]:
    """Return the names of the fields that `__init__` takes."""
    return [item.name for item in fields(dataclass_type) if item.init]


def nearest_name(name: str, names: list[str]) -> str:
    """Return the name that is most like a wrong one; for messages. If none is like it, return all, at most twelve."""
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    return near[0] if near else f"one of {', '.join(names[:12])}"


def _as_dict(name: str, value: dict | str | None) -> dict | None:
    """Return the value of a dict field, which a flag gives as JSON or as a JSON file."""
    if isinstance(value, str):
        value = parse_json(value, name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}={value!r}: must be a JSON object")
    return value
