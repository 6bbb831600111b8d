"""The ablations of the study: what each part of a method is good for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .saliencies import PUMER_PARTS


@dataclass(frozen=True)
class Variant:
    """An ablation of a method.

    Args:
        title: the name in the table.
        schedule: fields of the schedule that the variant changes before it is scaled to the target speed.
        fields: fields that it changes in the schedule that was found for the method itself. They leave the numbers of
            tokens as they are.
        training: the fields of the recipe's `training` block that the variant changes.
    """

    title: str
    schedule: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reduces_alike(self) -> bool:
        """Whether its schedule is that of the method itself."""
        return not (self.schedule or self.fields)


def saliency(word: str) -> dict[str, Any]:
    """Return the fields of PuMer that prunes by a saliency of the laboratory."""
    return {"method": PUMER_PARTS, "saliency": word}


NO_DISTILLATION = Variant("without distillation", training={"alpha": 0.0})
ABLATIONS: dict[str, dict[str, Variant]] = {
    "pumer": {
        "random_saliency": Variant("prunes at random", fields=saliency("random")),
        "image_saliency": Variant("prunes what stands out least in the image", fields=saliency("image")),
        "content_words": Variant("content words alone ask", fields=saliency("content_words")),
        "first_head": Variant("first head alone", fields={"saliency": "first_head"}),
        "drops": Variant("drops what it would merge", fields={"method": PUMER_PARTS, "drops": True}),
        "prunes_alone": Variant(
            "prunes alone",
            schedule={"prune_ratio": [0.4, 0.6], "image_merge_ratio": 0.0, "text_merge_ratio": 0.0},
        ),
        "merges_alone": Variant(
            "merges alone",
            schedule={"prune_ratio": 0.0, "image_merge_ratio": [0.4, 0.4], "text_merge_ratio": [0.2, 0.4]},
        ),
        "keeps_text": Variant("keeps the text", schedule={"text_merge_ratio": 0.0}),
        "even_split": Variant(
            "prunes and merges alike in both layers",
            schedule={"prune_ratio": 0.3, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2},
        ),
        "paper_split": Variant(
            "ratios as in the paper",
            schedule={"prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2},
        ),
        "one_layer": Variant(
            "one layer",
            schedule={"layers": [1], "prune_ratio": 0.5, "image_merge_ratio": 0.3, "text_merge_ratio": 0.3},
        ),
        "later_layers": Variant("one layer later", schedule={"layers": [1, 3]}),
        "without_distillation": NO_DISTILLATION,
    },
}
"""The ablations, which are of ViLT on cluttered digit scenes, by method and then by name.

Those of PuMer are the components (its Table 3), the ratios, and the number and place of the layers (Table 4). Those
that change the numbers of tokens are scaled to the speed of the method itself."""
