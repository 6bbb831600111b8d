"""The methods of the study: the schedule that each one starts from, and its ablations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pumer_hf.reducers import METHODS as REDUCERS

NONE, RESOLUTION = "none", "resolution"
"""Methods without a reducer: `none` trains the unreduced model further, `resolution` gives it smaller images."""


@dataclass(frozen=True)
class Method:
    """A method of the study.

    Args:
        schedules: by backbone, the reduction that is scaled to a target speed. It sets the layers, and how the ratios
            relate to each other.
        learned: whether the method has parameters of its own, and so needs training.
        data: the fields of the recipe's `data` block that the method changes.
        data_sets: the recipe folders whose data the method can use; None for all.
        first_stage: the part of the steps in which only the reducer and the head learn.
    """

    schedules: Mapping[str, Mapping[str, Any]]
    learned: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    data_sets: tuple[str, ...] | None = None
    first_stage: float = 0.0


# ViLT has six layers here, METER three pairs of layers. The schedules begin right after the text has met the image. If
# they began one layer later, ViLT would be at most 1.7 times as fast, even if it pruned everything.
PRUNING = {
    "vilt": {"layers": [1, 2, 3], "prune_ratio": 0.5},
    "meter": {"layers": [0, 1], "prune_ratio": 0.5},
}
# The published results were scaled from these schedules of PuMer. The recipe of digit scenes has changed since then:
# it prunes nothing in its first layer.
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
"""The methods in the order of the tables. The work list leaves out those that the package has no reducer for."""

MAIN, TRAINING_FREE = "main", "training_free"


@dataclass(frozen=True)
class Variant:
    """An ablation of a method. It changes the schedule that was found for the method itself.

    Args:
        title: the name in the table.
        schedule: another schedule. It is scaled to the target speed, and replaces the found one.
        factors: by name of a ratio, the number to multiply it by. 0 switches a step off.
        fields: new values of other fields of the found schedule.
        training: the fields of the recipe's `training` block that the variant changes.
    """

    title: str
    schedule: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reduces_alike(self) -> bool:
        """Whether its schedule is that of the method itself."""
        return not (self.schedule or self.factors or self.fields)


NO_DISTILLATION = Variant("without distillation", training={"alpha": 0.0})

ABLATIONS: dict[str, dict[str, Variant]] = {
    # PuMer, Table 3: the components. Table 4: the ratios, the number of layers (at the same speed), and their place.
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
    # TiP, Table 3: the pruner and its losses. Table 4: the ratios, the number of layers (at the same speed), and their
    # place.
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
"""The ablations, which are of ViLT on digit scenes, by method and then by name."""


def available(backbone: str) -> list[str]:
    """Return the methods that this version of the package has for a backbone, in the order of `METHODS`."""
    known = {NONE, RESOLUTION, *REDUCERS}
    return [name for name, method in METHODS.items() if name in known and backbone in method.schedules]


def variant_of(method: str, name: str) -> Variant:
    """Return a variant of a method by name, which may be [`MAIN`] or [`TRAINING_FREE`]."""
    titles = {MAIN: "all of it", TRAINING_FREE: "without training"}
    return Variant(titles[name]) if name in titles else ABLATIONS[method][name]


def base_schedule(method: str, backbone: str, variant: Variant) -> dict[str, Any] | None:
    """Return the reduction that is scaled to a target speed, as a dict; None for a method without a reducer."""
    if method in (NONE, RESOLUTION):
        return None
    return {"method": method, **(variant.schedule or METHODS[method].schedules[backbone])}
