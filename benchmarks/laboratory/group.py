"""The students of a teacher share its weights, the data, its logits, and the scorer that is trained behind it."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import ProcessorMixin, set_seed

from pumer_hf.bench.cost import measure_size
from pumer_hf.bench.profiles import untouched_share
from pumer_hf.data.collator import Collator
from pumer_hf.data.task import Task, TaskData
from pumer_hf.data.tasks import TASKS
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.models.families import patch_size
from pumer_hf.recipes.build import build_teacher, load_model, teacher_labels
from pumer_hf.recipes.image_use import evaluate_image_use
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.pretraining import pretrain
from pumer_hf.recipes.recipe import Recipe, RecipeTrainingArguments
from pumer_hf.recipes.run_results import benchmark_batch, evaluate
from pumer_hf.recipes.runner import train_models, training_texts
from pumer_hf.recipes.scorer_stage import freeze_scorer, train_recipe_scorer
from pumer_hf.recipes.stages import is_complete
from pumer_hf.reducers import PlainSchedule
from pumer_hf.results import Environment
from pumer_hf.training.teacher_logits import add_teacher_logits
from pumer_hf.tuning.finder import Found

from . import store
from .methods import LOOKAHEAD, METHODS, parts_of
from .plan import DATA_SETS, SEEDS, SIZES, Cell, StudySize, work_list
from .records import TeacherResult
from .saliencies import PUMER_PARTS, register, watch_words

OWN_IMAGE = "own_image"
SCORER = {"max_steps": 800, "answer_steps": 100}
"""How a scorer is trained, as in the recipe of `lookahead`."""


class TeacherError(ValueError):
    """The folder of the results has those of another teacher."""


@dataclass(frozen=True)
class Study:
    """The size of a study and its folders. The object is small, since it is sent to worker processes."""

    size_name: str
    output: Path
    """The folder of the results."""
    work: Path
    """The folder of teachers, students and cached logits."""
    recipes: Path
    """The folder of the recipes, `<backbone>/<data>/pumer.yaml`."""
    teachers: tuple[str, ...] = ()
    """Trained teachers of the seeds 0, 1, ..., folders or Hub ids. The recipe trains those of the other seeds."""

    @property
    def size(self) -> StudySize:
        """How much work the study is."""
        return SIZES[self.size_name]

    def targets(self, cell: Cell) -> list[float]:
        """Return the target speeds of a method and variant in the plan, those of a cell that is not in it too."""
        planned = [one.target for one in work_list(self.size) if one.search_key == cell.search_key]
        return sorted({target for target in (*planned, cell.target) if target is not None})

    def folder(self, data: str, backbone: str, seed: int) -> Path:
        """Return the folder of a teacher and its students."""
        return self.work / f"{data}-{backbone}" / f"seed{seed}"

    def recipe(self, data: str, backbone: str, seed: int) -> Recipe:
        """Return the recipe of a group for a seed, with its teacher if that is trained already."""
        folder = self.folder(data, backbone, seed)
        trained = folder / "teacher"
        teacher = str(trained) if is_complete(trained) else None
        if seed < len(self.teachers):
            teacher = self.teachers[seed]
        flags = ["--output_dir", str(folder), "--resume", "true", "--report_to", "none", "--seed", str(seed)]
        flags += self.size.arguments()
        if teacher is not None:
            flags += ["--teacher", teacher]
        path = self.recipes / backbone / data / "pumer.yaml"
        return parse_recipe(TASKS[DATA_SETS[data]], path, [str(path), *flags])


@dataclass(frozen=True)
class Shared:
    """What the cells of a group share."""

    study: Study
    task: Task
    recipe: Recipe
    data: TaskData
    processor: ProcessorMixin
    teacher_folder: str
    found: dict[str, dict[float, Found]] = field(default_factory=dict)
    """By [`Cell.search_key`], the schedules that were found for the target speeds."""
    batches: dict[tuple[str, int | None], dict[str, Tensor]] = field(default_factory=dict)
    """The batches whose speed is measured, by the data of the method and the size of the images."""

    def student(self, reduction: PlainSchedule | None, image_size: int | None = None) -> PuMerPreTrainedModel:
        """Return a student with the teacher's weights, on the device. `image_size` is for smaller images."""
        if reduction is not None:
            reduction = [self.with_scorer(part) for part in parts_of(reduction)]
            if any(part["method"] == PUMER_PARTS for part in reduction):
                register()
        student = load_model(self.teacher_folder, reduction, self.task)
        if image_size is not None:
            student.resize_images(image_size)
        freeze_scorer(student)
        watch_words(student, self.processor.tokenizer)
        return student.to(self.recipe.training.device)

    def with_scorer(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return a part of a schedule with the scorer of this teacher, if it needs one."""
        return {**part, "weights": self.scorer} if part["method"] == LOOKAHEAD else part

    @cached_property
    def scorer(self) -> str:
        """The folder of the scorer that is trained behind the teacher, without labels. It is trained once."""
        values = {**self.recipe.training_values, "scorer_training": {**SCORER, **self.study.size.scorer}}
        recipe = replace(
            self.recipe,
            reduction=METHODS[LOOKAHEAD].schedules["vilt"],
            training=RecipeTrainingArguments(**values),
            training_values=values,
        )
        collator = self.collator("none").for_benchmark()
        trained = train_recipe_scorer(self.task, recipe, self.data, self.teacher_folder, collator)
        return str(parts_of(trained)[0]["weights"])

    def smaller(self, part: float) -> int | None:
        """Return the side of images that is a part of the teacher's, in whole patches; None if it is the same."""
        side, _ = patch_size(self.teacher.config)
        size = round(part * self.teacher.config.image_size / side) * side
        return None if size == self.teacher.config.image_size else size

    @cached_property
    def teacher(self) -> PuMerPreTrainedModel:
        """The teacher, in eval mode."""
        return self.student(None).eval()

    def collator(self, method: str, image_size: int | None = None, training: bool = False) -> Collator:
        """Return the collator of a method. `image_size` is for smaller images."""
        args = replace(self.recipe.data, **METHODS[method].data)
        return self.task.collator(self.sized_processor(image_size), self.data, args, training)

    def sized_processor(self, image_size: int | None) -> ProcessorMixin:
        """Return the processor that encodes as the recipe says. `image_size` is for images of another side."""
        return self.recipe.data.encoder(self.processor).at_size(image_size).processor

    def batch(self, method: str, image_size: int | None = None) -> dict[str, Tensor]:
        """Return the first test rows as the inputs of a method, on the device, to measure its speed."""
        key = (str(METHODS[method].data), image_size)
        if key not in self.batches:
            collator = self.collator(method, image_size)
            self.batches[key] = benchmark_batch(self.recipe.training, self.data, collator)
        return self.batches[key]

    @cached_property
    def train(self) -> Dataset:
        """The training rows with the teacher's logits on images of full size. The logits are computed once.

        There are as many random rows as a training reads. If the inputs of a row are random, as in retrieval, the rows
        have no logits.
        """
        collator, rows = self.collator("none", training=True), self.data.train
        if collator.is_random:
            return rows
        args = RecipeTrainingArguments(**{**self.recipe.training_values, **self.study.size.student})
        number = args.max_steps * args.train_batch_size * args.gradient_accumulation_steps
        if 0 < number < len(rows):
            rows = rows.shuffle(seed=args.seed).select(range(number))
        return add_teacher_logits(
            rows,
            self.teacher,
            collator,
            cache_dir=Path(self.recipe.training.output_dir) / "cache",
            batch_size=self.recipe.training.per_device_eval_batch_size,
        )

    @property
    def live_teacher(self) -> PuMerPreTrainedModel | None:
        """The teacher for a trainer. It is None if the rows have the logits."""
        return None if "teacher_logits" in self.train.column_names else self.teacher


@lru_cache(maxsize=1)
def load_data(study: Study, data: str, backbone: str) -> TaskData:
    """Load the data of a group, which all its teachers share."""
    recipe = study.recipe(data, backbone, 0)
    return TASKS[DATA_SETS[data]].load(recipe.data, teacher_labels(recipe.model))


@lru_cache(maxsize=len(SEEDS))
def load_group(study: Study, data: str, backbone: str, seed: int) -> Shared:
    """Load what the students of a teacher share. If there is no teacher, train it by the recipe."""
    task, recipe, splits = TASKS[DATA_SETS[data]], study.recipe(data, backbone, seed), load_data(study, data, backbone)
    texts = training_texts(task, recipe, splits)
    model = pretrain(recipe, texts)
    set_seed(recipe.training.seed)
    teacher, processor = build_teacher(model, splits.labels, texts, recipe.data.max_text_length, task)
    collators = [task.collator(processor, splits, recipe.data, training) for training in (True, False)]
    folders = train_models(task, replace(recipe, reduction=None), splits, teacher, *collators)
    return Shared(study, task, recipe, splits, processor, folders["teacher"])


def check_teacher(shared: Shared, group: str) -> None:
    """Evaluate the teacher and write its file, once. Where the task has it, evaluate it without its images too.

    Raises:
        TeacherError: the folder has results of another teacher.
    """
    study, seed = shared.study, shared.recipe.training.seed
    name = store.teacher_name(group, seed)
    fingerprint = weights_fingerprint(shared.teacher)
    known = store.load(study.output, name, TeacherResult)
    if known is not None:
        if known.weights != fingerprint:
            raise TeacherError(
                f"{study.output / name}.json is about another teacher than {shared.teacher_folder}: give --teachers "
                "the old one, or choose another --output"
            )
        return
    args = (shared.task, shared.recipe.training, shared.teacher, shared.data, shared.collator("none"))
    has_image_use = shared.task.evaluate is None and len(shared.data.test) > 1
    found = evaluate_image_use(*args) if has_image_use else {OWN_IMAGE: evaluate(*args)}
    example = {key: value[:1] for key, value in shared.batch("none").items()}
    size = measure_size(shared.teacher, example)
    evaluation = found.pop(OWN_IMAGE)
    share = untouched_share(*_before_layers(shared), shared.recipe.training.device)
    result = TeacherResult(
        group=group,
        seed=seed,
        metric=evaluation.main_name,
        value=evaluation.main,
        gflops=size.gflops,
        environment=Environment.current(),
        weights=fingerprint,
        tokens_per_layer=tuple(size.tokens_per_layer),
        evaluation=evaluation,
        baselines=found,
        limit=1 / share,
    )
    store.write(study.output, name, result)


def _before_layers(shared: Shared) -> tuple[tuple[PuMerPreTrainedModel, PuMerPreTrainedModel], tuple[Any, Any]]:
    """Return the teacher and a model that reduces before its first layer, and functions that run them."""
    models = (shared.teacher, shared.student(METHODS["grid"].schedules["vilt"]).eval())
    batch = shared.batch("none")

    def run(model: PuMerPreTrainedModel) -> Any:
        with torch.inference_mode():
            return model(**batch)

    return models, (partial(run, models[0]), partial(run, models[1]))


def weights_fingerprint(model: PuMerPreTrainedModel) -> str:
    """Return twelve hexadecimal digits that identify the weights of a model."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
