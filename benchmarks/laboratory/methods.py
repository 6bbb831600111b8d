"""What each method of the study starts from, and its ablations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pumer_hf.reducers import METHODS as REDUCERS

NONE, RESOLUTION = "none", "resolution"
"""Methods without a reducer: the unreduced model, trained on; and smaller images."""


@dataclass(frozen=True)
class Method:
    """A method of the study.

    Args:
        schedules: by backbone, the reduction to scale to a target speed: layers, and ratios relative to each other.
        learned: it has parameters, so that it needs training.
        data: fields of the recipe's `data` block that are different.
        data_sets: recipe folders that have what it needs; None for all.
        first_stage: part of the steps in which only what reduces tokens and the head learn.
    """

    schedules: Mapping[str, Mapping[str, Any]]
    learned: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    data_sets: tuple[str, ...] | None = None
    first_stage: float = 0.0


# ViLT has six layers here, METER three pairs. Methods that prune by the text do so once it has met the image; a layer
# later, pruning everything would give ViLT no more than 1.7 times the speed.
PRUNING = {
    "vilt": {"layers": [1, 2, 3], "prune_ratio": 0.5},
    "meter": {"layers": [0, 1], "prune_ratio": 0.5},
}
# PuMer's schedules are those that the published results were scaled from. The recipe of digit scenes has changed since
# then: it prunes nothing in its first layer.
METHODS: dict[str, Method] = {
    NONE: Method({"vilt": {}, "meter": {}}),
    "pumer": Method(
        {
            "vilt": {
                "layers": [0, 2],
                "prune_ratio": [0.05, 0.4],
                "image_merge_ratio": [0.4, 0.2],
                "text_merge_ratio": 0.2,
            },
            "meter": {
                "layers": [0, 1],
                "prune_ratio": [0.05, 0.4],
                "image_merge_ratio": [0.4, 0.2],
                "text_merge_ratio": 0.2,
            },
        }
    ),
    "tip": Method(PRUNING, learned=True, first_stage=0.25),
    "tome": Method(
        {
            "vilt": {"layers": [0, 1, 2, 3, 4, 5], "merge_ratio": 0.15},
            "meter": {"layers": [0, 1, 2], "merge_ratio": 0.15},
        }
    ),
    "dynamicvit": Method(PRUNING, learned=True),
    "random": Method(PRUNING),
    "grounded": Method(PRUNING, data={"image_saliency": True}, data_sets=("digit_scenes",)),
    RESOLUTION: Method({"vilt": {}, "meter": {}}),
}
"""In order of the tables. Those that the registry of reducers does not have are left out of the work list."""

MAIN, TRAINING_FREE = "main", "training_free"


@dataclass(frozen=True)
class Variant:
    """An ablation of a method. Its schedule is the one that was found for the method itself, changed.

    Args:
        title: for the table.
        schedule: instead of that, a schedule to scale to the target speed by itself.
        factors: ratios of the found schedule by name, times so much; 0 switches a step off.
        fields: other fields of the found schedule.
        training: fields of the recipe's `training` block that are different.
    """

    title: str
    schedule: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reduces_alike(self) -> bool:
        """Whether its schedule is the method's own."""
        return not (self.schedule or self.factors or self.fields)


NO_DISTILLATION = Variant("without distillation", training={"alpha": 0.0})

ABLATIONS: dict[str, dict[str, Variant]] = {
    # PuMer, Table 3: the components; Table 4: ratios, number of layers (at the same speed), their place.
    "pumer": {
        "without_pruning": Variant("without pruning", factors={"prune_ratio": 0.0}),
        "without_merging": Variant("without merging", factors={"image_merge_ratio": 0.0, "text_merge_ratio": 0.0}),
        "without_distillation": NO_DISTILLATION,
        "more_pruning": Variant("twice the pruning", factors={"prune_ratio": 2.0}),
        "more_image_merging": Variant("1.67 times the image merging", factors={"image_merge_ratio": 5 / 3}),
        "more_text_merging": Variant("2.5 times the text merging", factors={"text_merge_ratio": 2.5}),
        "one_layer": Variant(
            "one layer, same speed",
            schedule={"layers": [1], "prune_ratio": 0.3, "image_merge_ratio": 0.4, "text_merge_ratio": 0.2},
        ),
        "three_layers": Variant(
            "three layers, same speed",
            schedule={
                "layers": [0, 2, 4],
                "prune_ratio": [0.05, 0.3, 0.3],
                "image_merge_ratio": [0.4, 0.2, 0.2],
                "text_merge_ratio": 0.2,
            },
        ),
        "early_layers": Variant("earlier layers", fields={"layers": [0, 1]}),
        "late_layers": Variant("later layers", fields={"layers": [3, 4]}),
    },
    # TiP, Table 3: the pruner and its losses; Table 4: ratios, number of layers (at the same speed), their place.
    "tip": {
        "pruner_linear": Variant("linear pruner", fields={"pruner": "linear"}),
        "pruner_mean_attention": Variant("pruner on the mean attention", fields={"pruner": "mean_head"}),
        "pruner_first_attention": Variant("pruner on the first head", fields={"pruner": "first_head"}),
        "without_contrastive": Variant("without contrastive loss", fields={"contrastive_weight": 0.0}),
        "without_continuity": Variant("without continuity loss", fields={"continuity_weight": 0.0}),
        "without_both": Variant("without both", fields={"contrastive_weight": 0.0, "continuity_weight": 0.0}),
        "without_distillation": NO_DISTILLATION,
        "ratio_0.7": Variant("ratio 0.7", fields={"prune_ratio": 0.7}),
        "ratio_0.3": Variant("ratio 0.3", fields={"prune_ratio": 0.3}),
        "one_layer": Variant("one layer, same speed", schedule={"layers": [1], "prune_ratio": 0.7}),
        "two_layers": Variant("two layers, same speed", schedule={"layers": [1, 2], "prune_ratio": 0.6}),
        "early_layers": Variant("earlier layers", fields={"layers": [0, 1, 2]}),
        "late_layers": Variant("later layers", fields={"layers": [2, 3, 4]}),
    },
}
"""Of ViLT on digit scenes. By method, then by name."""


def available(backbone: str) -> list[str]:
    """The methods that this version of the package has for a backbone, in order of `METHODS`."""
    known = {NONE, RESOLUTION, *REDUCERS}
    return [name for name, method in METHODS.items() if name in known and backbone in method.schedules]


def variant_of(method: str, name: str) -> Variant:
    """A variant of a method by name, [`MAIN`] and [`TRAINING_FREE`] included."""
    titles = {MAIN: "all of it", TRAINING_FREE: "without training"}
    return Variant(titles[name]) if name in titles else ABLATIONS[method][name]


def base_schedule(method: str, backbone: str, variant: Variant) -> dict[str, Any] | None:
    """The reduction, as a dict, that is scaled to a target speed; None for a method without a reducer."""
    if method in (NONE, RESOLUTION):
        return None
    return {"method": method, **(variant.schedule or METHODS[method].schedules[backbone])}
