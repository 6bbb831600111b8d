"""The work list of the study: which students are trained, and in which order."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .methods import ABLATIONS, MAIN, METHODS, NONE, TRAINING_FREE, available, variant_of

DATA_SETS = {
    "digit_scenes": "vqa",
    "digit_scenes_nlvr2": "nlvr2",
    "digit_scenes_snli_ve": "snli_ve",
    "digit_scenes_retrieval": "retrieval",
    "easy_vqa": "vqa",
}
"""The recipe folders of the study, and the task of each."""
SPEEDS = (1.7, 2.2, 1.3)
"""The target speeds as multiples of the teacher's throughput, the most important first."""
METER_SPEEDS = (1.3, 1.5)
"""The target speeds of METER. They are lower, since the study reduces no tokens in its towers."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Cell:
    """One student: what it is trained on, how it reduces tokens, and how fast it should be."""

    data: str
    backbone: str
    method: str
    target: float | None
    """The target throughput relative to the teacher. None means the schedule of `METHODS` as it is."""
    seed: int = 0
    variant: str = MAIN

    @property
    def group(self) -> str:
        """The name of its group, data set and backbone. All cells of a group have the same teacher."""
        return f"{self.data}-{self.backbone}"

    @property
    def key(self) -> str:
        """The name of the file with its result."""
        return f"{self.group}-{self.method}-{self.variant}-{self.speed_name}-seed{self.seed}"

    @property
    def speed_name(self) -> str:
        """The target speed as a part of file names."""
        return "as_is" if self.target is None else f"{self.target:g}x"

    @property
    def schedule_variant(self) -> str:
        """The variant whose schedule the student has."""
        return MAIN if variant_of(self.method, self.variant).reduces_alike else self.variant

    @property
    def schedule_key(self) -> str:
        """The name of the file with its schedule and speed, which all seeds share."""
        return f"{self.group}-{self.method}-{self.schedule_variant}-{self.speed_name}-speed"

    @property
    def curve_key(self) -> str:
        """The name of the file with the speed of its schedule at all scales, which all targets share."""
        return f"{self.group}-{self.method}-{self.schedule_variant}-curve"

    def to_dict(self) -> dict[str, Any]:
        """Return the cell as plain JSON types, with `key`, `group` and the `title` of the variant for tables."""
        title = variant_of(self.method, self.variant).title
        return {"key": self.key, "group": self.group, "title": title, **asdict(self)}


@dataclass(frozen=True)
class Group:
    """Cells with the same teacher."""

    data: str
    backbone: str
    speeds: tuple[float | None, ...] = SPEEDS
    seeds: tuple[int, ...] = SEEDS
    extras: bool = False
    """Whether it has cells without training and ablations too."""
    methods: tuple[str, ...] | None = None
    """The methods by name; None for all."""


@dataclass(frozen=True)
class StudySize:
    """How much work a study is.

    Args:
        groups: the groups of cells, the most important first.
        flags: flags for the recipes of teachers and students.
        student: fields of the recipes' `training` block that have other values for students.
        benchmark_seconds: how long to measure a schedule that was found.
    """

    groups: tuple[Group, ...]
    flags: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] = field(default_factory=dict)
    benchmark_seconds: float = 10.0

    def arguments(self) -> list[str]:
        """Return the flags as a command line."""
        values = {
            name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in self.flags.items()
        }
        return [word for name, value in values.items() for word in (f"--{name}", value)]


FIRST = Group("digit_scenes", "vilt", extras=True)
OTHERS = tuple(data for data in DATA_SETS if data != "digit_scenes")
TINY_MODEL = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 96,
    "patch_size": 8,
    "max_position_embeddings": 12,
}
SIZES = {
    "cpu": StudySize((FIRST,), student={"max_steps": 500}),
    "gpu": StudySize(
        (
            FIRST,
            Group("digit_scenes", "meter", speeds=METER_SPEEDS),
            *(Group(data, "vilt", speeds=(1.7,)) for data in OTHERS),
            *(Group(data, "meter", speeds=(1.3,)) for data in OTHERS if data.startswith("digit_scenes")),
        )
    ),
    "tiny": StudySize(
        (Group("digit_scenes", "vilt", speeds=(1.3,), seeds=(0,), methods=(NONE, "pumer")),),
        flags={
            "config": TINY_MODEL,
            "train_scenes": 8,
            "eval_scenes": 4,
            "unknown_answers": "ignore",
            "teacher_training": {"max_steps": 2},
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 16,
            "use_cpu": True,
        },
        student={"max_steps": 2},
        benchmark_seconds=0.1,
    ),
}
"""The sizes by name. `cpu` is ViLT on digit scenes, which takes two hours on two cores. `gpu` is everything, with the
steps of the recipes. `tiny` is two cells of a model that is too small to learn; it shows that all works."""


def work_list(size: StudySize, methods: Callable[[str], Sequence[str]] = available) -> list[Cell]:
    """Return all cells of a study, the most important first.

    Args:
        size: one of `SIZES`.
        methods: a function that returns the methods for a backbone.
    """
    return [cell for group in size.groups for cell in group_cells(group, methods(group.backbone))]


def group_cells(group: Group, methods: Sequence[str]) -> list[Cell]:
    """Return the cells of a group: the methods at all speeds, those without training, then the ablations.

    The methods come speed by speed, and seed by seed. The ablations are at the first target speed.
    """
    chosen = [name for name in methods if group.methods is None or name in group.methods]
    chosen = [name for name in chosen if group.data in (METHODS[name].data_sets or (group.data,))]
    reducing = [name for name in chosen if name != NONE]
    cells = []
    for speed in group.speeds:
        for seed in group.seeds:
            if NONE in chosen and speed == group.speeds[0]:
                cells.append(Cell(group.data, group.backbone, NONE, None, seed))
            cells += [Cell(group.data, group.backbone, name, speed, seed) for name in reducing]
    if group.extras:
        seed, speed = group.seeds[0], group.speeds[0]
        untrained = [name for name in reducing if not METHODS[name].learned]
        cells += [
            Cell(group.data, group.backbone, name, target, seed, TRAINING_FREE)
            for target in group.speeds
            for name in untrained
        ]
        cells += [
            Cell(group.data, group.backbone, name, speed, seed, variant)
            for name in reducing
            for variant in ABLATIONS.get(name, {})
        ]
    return cells
