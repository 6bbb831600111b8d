"""The methods of the study: the schedule that each one starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pumer_hf.reducers import METHODS as REDUCERS
from pumer_hf.reducers import PlainSchedule

from .ablations import ABLATIONS, Variant

NONE, RESOLUTION, LOOKAHEAD = "none", "resolution", "lookahead"
"""`none` trains the unreduced model further, and `resolution` gives it smaller images. Both have no reducer.
`lookahead` needs a trained scorer."""
SCENES = ("digit_scenes", "digit_scenes_cluttered")
"""The data that know where the answers are."""


@dataclass(frozen=True)
class Method:
    """A method of the study.

    Args:
        schedules: by backbone, the reduction that is scaled to a target speed; None for a method without a reducer. It
            sets the sites and layers, and how the ratios relate to each other.
        learned: whether the method has parameters that learn in the student's training, and so needs training.
        data: the fields of the recipe's `data` block that the method changes.
        data_sets: the recipe folders whose data the method can use; None for all.
        first_stage: the part of the steps in which only the reducer and the head learn.
        image_part: the side of its images, as a part of the teacher's.
    """

    schedules: Mapping[str, PlainSchedule | None]
    learned: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    data_sets: tuple[str, ...] | None = None
    first_stage: float = 0.0
    image_part: float = 1.0

    @property
    def reducers(self) -> set[str]:
        """The methods of the package that its schedules need."""
        plain = [schedule for schedule in self.schedules.values() if schedule is not None]
        return {part["method"] for schedule in plain for part in parts_of(schedule)}

    @property
    def needs_scorer(self) -> bool:
        """Whether a scorer has to be trained before its students."""
        return LOOKAHEAD in self.reducers


def parts_of(schedule: PlainSchedule) -> list[dict[str, Any]]:
    """Return the parts of a plain schedule."""
    return schedule if isinstance(schedule, list) else [schedule]


def before_layers(method: str) -> Method:
    """Return a method that keeps a part of the image tokens before the first layer, in both backbones."""
    part = {"method": method, "site": "inputs", "keep_ratio": 0.5}
    return Method({"vilt": part, "meter": part})


# ViLT has six layers here, METER three pairs of layers. The schedules begin right after the text has met the image. If
# they began one layer later, ViLT would be at most 1.7 times as fast, even if it pruned everything.
PRUNING = {"vilt": {"layers": [1, 2, 3], "prune_ratio": 0.5}, "meter": {"layers": [0, 1], "prune_ratio": 0.5}}
PUMER = {
    "method": "pumer",
    "layers": [0, 2],
    "prune_ratio": [0.0, 0.7],
    "image_merge_ratio": [0.4, 0.1],
    "text_merge_ratio": [0.2, 0.4],
}
"""PuMer as the recipes of digit scenes have it."""
PUMER_OF = {"vilt": PUMER, "meter": {**PUMER, "layers": [0, 1]}}


def pruning(method: str, first_layers: Mapping[str, list[int]] | None = None, **values: Any) -> Method:
    """Return a method that prunes image tokens in layers."""
    schedules: dict[str, PlainSchedule] = {name: {"method": method, **part} for name, part in PRUNING.items()}
    if first_layers is not None:
        schedules = {
            name: {"method": method, **PRUNING[name], "layers": found} for name, found in first_layers.items()
        }
    return Method(schedules, **values)


LOOKAHEAD_PART = {"method": LOOKAHEAD, "site": "inputs", "keep_ratio": 0.5}
METHODS: dict[str, Method] = {
    NONE: Method({"vilt": None, "meter": None}),
    "pumer": Method(PUMER_OF),
    "pumer_inputs": before_layers("pumer"),
    LOOKAHEAD: Method({"vilt": LOOKAHEAD_PART, "meter": LOOKAHEAD_PART}),
    "lookahead_pumer": Method({name: [LOOKAHEAD_PART, part] for name, part in PUMER_OF.items()}),
    "tip": pruning("tip", learned=True, first_stage=0.25),
    "dynamicvit": pruning("dynamicvit", learned=True),
    "tome": Method(
        {
            "vilt": {"method": "tome", "layers": [0, 1, 2, 3, 4, 5], "merge_ratio": 0.15},
            "meter": {"method": "tome", "layers": [0, 1, 2], "merge_ratio": 0.15},
        }
    ),
    "tome_tower": Method({"meter": {"method": "tome", "site": "tower", "merge_ratio": 0.15}}),
    "fastv": pruning("fastv", {"vilt": [1], "meter": [0]}),
    "pyramid": pruning("pyramid"),
    "grid": before_layers("grid"),
    "diverse": before_layers("diverse"),
    "relevant_diverse": before_layers("relevant_diverse"),
    "random": pruning("random"),
    "grounded": pruning("grounded", data={"image_saliency": True}, data_sets=SCENES),
    RESOLUTION: Method({"vilt": None, "meter": None}),
    "resolution_pumer": Method(PUMER_OF, image_part=0.75),
}
"""The methods in the order of the tables. The work list leaves out those that the package has no reducer for."""

MAIN = "main"


def available(backbone: str) -> list[str]:
    """Return the methods that this version of the package has for a backbone, in the order of `METHODS`."""
    return [
        name for name, method in METHODS.items() if backbone in method.schedules and method.reducers <= set(REDUCERS)
    ]


def variant_of(method: str, name: str) -> Variant:
    """Return a variant of a method by name, which may be [`MAIN`]."""
    return Variant("all of it") if name == MAIN else ABLATIONS[method][name]


def base_schedule(method: str, backbone: str, variant: Variant) -> PlainSchedule | None:
    """Return the reduction that is scaled to a target speed; None for a method without a reducer."""
    schedule = METHODS[method].schedules[backbone]
    return {**parts_of(schedule)[0], **variant.schedule} if schedule and variant.schedule else schedule
