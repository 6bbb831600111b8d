"""The work list of the study: which students there are, and in which order."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from .ablations import ABLATIONS
from .methods import MAIN, METHODS, NONE, available, variant_of

DATA_SETS = {
    "digit_scenes_cluttered": "vqa",
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
"""The target speeds of METER. They are lower, since its towers take much of the time."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Cell:
    """One student: whose student it is, how it reduces tokens, how fast it should be, and whether it is trained."""

    data: str
    backbone: str
    method: str
    target: float | None
    """The target throughput relative to the teacher. None means the schedule of `METHODS` as it is."""
    seed: int = 0
    """The seed of the student's training, and of its teacher's."""
    variant: str = MAIN
    is_trained: bool = True
    """If not, the student has the weights of its teacher."""

    @property
    def group(self) -> str:
        """The name of its group: data set and backbone."""
        return f"{self.data}-{self.backbone}"

    @property
    def key(self) -> str:
        """The name of the file with its result."""
        trained = "trained" if self.is_trained else "untrained"
        return f"{self.group}-{self.method}-{self.variant}-{self.speed_name}-{trained}-seed{self.seed}"

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
    def search_key(self) -> str:
        """The name of its method and variant. What is measured for one target speed serves the others."""
        return f"{self.group}-{self.method}-{self.schedule_variant}"

    def to_dict(self) -> dict[str, Any]:
        """Return the cell as plain JSON types, with `key`, `group` and the `title` of the variant for tables."""
        title = variant_of(self.method, self.variant).title
        return {"key": self.key, "group": self.group, "title": title, **asdict(self)}


@dataclass(frozen=True)
class Group:
    """Cells of the same data set and backbone."""

    data: str
    backbone: str
    speeds: tuple[float, ...] = SPEEDS
    """The speeds without training."""
    trained_speeds: tuple[float, ...] = SPEEDS
    """The speeds of students that are trained."""
    seeds: tuple[int, ...] = SEEDS
    ablations: bool = False
    methods: tuple[str, ...] | None = None
    """The methods by name; None for all."""


@dataclass(frozen=True)
class StudySize:
    """How much work a study is.

    Args:
        groups: the groups of cells, the most important first.
        flags: flags for the recipes of teachers and students.
        student: fields of the recipes' `training` block that have other values for students.
        scorer: fields of the training of the scorers that have other values.
        benchmark_seconds: how long to measure a schedule that was found.
    """

    groups: tuple[Group, ...]
    flags: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] = field(default_factory=dict)
    scorer: Mapping[str, Any] = field(default_factory=dict)
    benchmark_seconds: float = 10.0

    def arguments(self) -> list[str]:
        """Return the flags as a command line."""
        values = {
            name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in self.flags.items()
        }
        return [word for name, value in values.items() for word in (f"--{name}", value)]


CLUTTERED = Group("digit_scenes_cluttered", "vilt", ablations=True)
PLAIN = Group("digit_scenes", "vilt")
METER = Group("digit_scenes", "meter", METER_SPEEDS, METER_SPEEDS)
OTHERS = ("digit_scenes_nlvr2", "digit_scenes_snli_ve", "digit_scenes_retrieval", "easy_vqa")
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
    "cpu": StudySize(
        (
            replace(CLUTTERED, trained_speeds=(1.7,)),
            replace(PLAIN, trained_speeds=(1.7,)),
            replace(METER, trained_speeds=(1.3,)),
        ),
        student={"max_steps": 500},
        benchmark_seconds=4.0,
    ),
    "gpu": StudySize(
        (
            CLUTTERED,
            PLAIN,
            METER,
            *(Group(data, "vilt", (1.7,), (1.7,)) for data in OTHERS),
            *(Group(data, "meter", (1.3,), (1.3,)) for data in OTHERS if data != "easy_vqa"),
        )
    ),
    "tiny": StudySize(
        (Group("digit_scenes", "vilt", (), (1.3,), seeds=(0,), methods=(NONE, "pumer")),),
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
        scorer={"max_steps": 2, "answer_steps": 0, "per_device_train_batch_size": 8},
        benchmark_seconds=0.1,
    ),
}
"""The sizes by name.

`cpu` is ViLT and METER on digit scenes, with short trainings. `gpu` is everything, with the steps of the recipes.
`tiny` is two cells of a model that is too small to learn; it shows that all works."""


def work_list(size: StudySize, methods: Callable[[str], Sequence[str]] = available) -> list[Cell]:
    """Return all cells of a study, the most important first.

    Args:
        size: one of `SIZES`.
        methods: a function that returns the methods for a backbone.
    """
    return [cell for group in size.groups for cell in group_cells(group, methods(group.backbone))]


def group_cells(group: Group, methods: Sequence[str]) -> list[Cell]:
    """Return the cells of a group, seed by seed: without training, then trained, then the ablations.

    The ablations are at the first of the trained speeds, trained and untrained.
    """
    chosen = [name for name in methods if group.methods is None or name in group.methods]
    chosen = [name for name in chosen if group.data in (METHODS[name].data_sets or (group.data,))]
    reducing = [name for name in chosen if name != NONE]
    untrained = [name for name in reducing if not METHODS[name].learned]
    variants = [(name, variant) for name in reducing for variant in ABLATIONS.get(name, {})] if group.ablations else []
    cells = []
    for seed in group.seeds:
        of = partial(Cell, group.data, group.backbone, seed=seed)
        cells += [of(name, speed, is_trained=False) for speed in group.speeds for name in untrained]
        cells += [of(NONE, None)] if NONE in chosen else []
        cells += [of(name, speed) for speed in group.trained_speeds for name in reducing]
        for name, variant in variants:
            without = [] if variant_of(name, variant).reduces_alike else [False]
            cells += [
                of(name, group.trained_speeds[0], variant=variant, is_trained=is_trained)
                for is_trained in (*without, True)
            ]
    return cells
