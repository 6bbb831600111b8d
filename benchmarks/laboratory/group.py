"""A group has the cells with the same teacher. They share its weights, the data, and its logits."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import ProcessorMixin, set_seed

from pumer_hf.bench.cost import measure_size
from pumer_hf.data.collator import Collator
from pumer_hf.data.task import Task, TaskData
from pumer_hf.data.tasks import TASKS
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.recipes.build import build_teacher, load_model, teacher_labels
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.pretraining import pretrain
from pumer_hf.recipes.recipe import Recipe
from pumer_hf.recipes.run_results import benchmark_batch, evaluate
from pumer_hf.recipes.runner import train_models, training_texts
from pumer_hf.recipes.stages import is_complete
from pumer_hf.results import Environment
from pumer_hf.training.teacher_logits import add_teacher_logits

from . import store
from .methods import METHODS
from .plan import DATA_SETS, SIZES, StudySize
from .records import TeacherResult


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
    teacher: str | None = None
    """The folder or the Hub id of a trained teacher. If it is None, the recipe trains one."""

    @property
    def size(self) -> StudySize:
        """How much work the study is."""
        return SIZES[self.size_name]

    def folder(self, data: str, backbone: str) -> Path:
        """Return the folder of a teacher and its students."""
        return self.work / f"{data}-{backbone}"

    def recipe(self, data: str, backbone: str) -> Recipe:
        """Return the recipe of a group, with its teacher if that is trained already."""
        folder = self.folder(data, backbone)
        trained = folder / "teacher"
        teacher = self.teacher or (str(trained) if is_complete(trained) else None)
        flags = ["--output_dir", str(folder), "--resume", "true", "--report_to", "none", *self.size.arguments()]
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

    def student(self, reduction: dict[str, Any] | None, image_size: int | None = None) -> PuMerPreTrainedModel:
        """Return a student with the teacher's weights, on the device. `image_size` is for smaller images."""
        student = load_model(self.teacher_folder, reduction, self.task)
        if image_size is not None:
            student.resize_images(image_size)
        return student.to(self.recipe.training.device)

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
        return benchmark_batch(self.recipe.training, self.data, self.collator(method, image_size))

    @cached_property
    def train(self) -> Dataset:
        """The training rows with the teacher's logits on images of full size. The logits are computed once.

        If the inputs of a row are random, as in retrieval, the rows have no logits.
        """
        collator = self.collator("none", training=True)
        if collator.is_random:
            return self.data.train
        return add_teacher_logits(
            self.data.train,
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
def load_group(study: Study, data: str, backbone: str) -> Shared:
    """Load what the cells of a group share. If there is no teacher, train it by the recipe."""
    task, recipe = TASKS[DATA_SETS[data]], study.recipe(data, backbone)
    splits = task.load(recipe.data, teacher_labels(recipe.model))
    texts = training_texts(task, recipe, splits)
    model = pretrain(recipe, texts)
    set_seed(recipe.training.seed)
    teacher, processor = build_teacher(model, splits.labels, texts, recipe.data.max_text_length, task)
    collators = [task.collator(processor, splits, recipe.data, training) for training in (True, False)]
    folders = train_models(task, replace(recipe, reduction=None), splits, teacher, *collators)
    return Shared(study, task, recipe, splits, processor, folders["teacher"])


def check_teacher(shared: Shared, group: str) -> None:
    """Evaluate the teacher and write its file, once.

    Raises:
        ValueError: the folder has results of another teacher.
    """
    study, name = shared.study, store.teacher_name(group)
    fingerprint = weights_fingerprint(shared.teacher)
    known = store.load(study.output, name, TeacherResult)
    if known is not None:
        if known.weights != fingerprint:
            raise ValueError(
                f"{study.output / name}.json is about another teacher than {shared.teacher_folder}: give --teacher "
                "the old one, or choose another --output"
            )
        return
    args = shared.recipe.training
    evaluation = evaluate(shared.task, args, shared.teacher, shared.data, shared.collator("none"))
    example = {key: value[:1] for key, value in shared.batch("none").items()}
    size = measure_size(shared.teacher, example)
    result = TeacherResult(
        group=group,
        metric=evaluation.main_name,
        value=evaluation.main,
        gflops=size.gflops,
        environment=Environment.current(),
        weights=fingerprint,
        tokens_per_layer=tuple(size.tokens_per_layer),
        evaluation=evaluation,
    )
    store.write(study.output, name, result)


def weights_fingerprint(model: PuMerPreTrainedModel) -> str:
    """Return twelve hexadecimal digits that identify the weights of a model."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
