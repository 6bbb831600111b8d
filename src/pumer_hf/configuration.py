"""`PuMerConfig`: the part of a model config that says how tokens are reduced."""

from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from . import remote_code
from .reducers import ReductionConfig, parse_reduction
from .reducers.pumer import PuMerReductionConfig

SEMANTICS = ("paper", "release")


class PuMerConfig(PreTrainedConfig):
    """Base of the model configs: holds `reduction`, checks it, and saves it with the model.

    Args:
        reduction: how tokens are reduced, in any form that [`parse_reduction`] takes; kept as a dict of plain JSON
            types. None gives the unreduced model.
        semantics: `"paper"`, or `"release"` to compute token for token what the code released with PuMer does
            ([`reducers.release`]). Only for checkpoints that were trained with that code.
        pooled_only: compute in the last layer only what `pooler_output` needs, the [CLS] of the text (METER: and that
            of the image), which attends to all tokens as before. The logits of a head stay the same. Not in the paper.
            `last_hidden_state` then has no other tokens. A last layer that reduces tokens computes all.
    """

    validated_fields: ClassVar[tuple[str, ...]] = ("reduction", "semantics", "pooled_only")
    """Fields that `__post_init__` checks."""
    has_image_tower: ClassVar[bool] = False
    """Whether the image passes through layers of its own before it meets the text."""

    reduction: dict | None = None
    semantics: str = "paper"
    pooled_only: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.semantics not in SEMANTICS:
            raise ValueError(f"semantics={self.semantics!r}: choose one of {', '.join(SEMANTICS)}")
        if not isinstance(self.pooled_only, bool):
            raise ValueError(f"pooled_only={self.pooled_only!r}: must be True or False")
        self.reduction = self.checked(self.reduction)

    @property
    def num_reducible_layers(self) -> int:
        """How many layers `reduction.layers` can name."""
        return self.num_hidden_layers

    @property
    def max_text_length(self) -> int:
        """Most tokens of a text."""
        return self.max_position_embeddings

    @property
    def max_patches(self) -> int | None:
        """Most patches of an image that the model takes, an even sample of them; None: it takes all."""
        return None

    def checked(self, reduction: ReductionConfig | dict[str, Any] | None) -> dict[str, Any] | None:
        """`reduction` as a complete dict; raises `ValueError` if it is wrong or does not fit this model."""
        schedule = parse_reduction(reduction)
        if schedule is None:
            return None
        if self.semantics == "release" and schedule.method != PuMerReductionConfig.method:
            raise ValueError(f"reduction.method={schedule.method!r}: semantics='release' knows only 'pumer'")
        schedule.validate_depth(self.num_reducible_layers)
        if isinstance(schedule, PuMerReductionConfig) and schedule.image_tower_merge_ratio > 0:
            self._check_tower_merging(schedule.image_tower_merge_ratio)
        return schedule.to_dict()

    def _check_tower_merging(self, ratio: float) -> None:
        """Raise `ValueError` if the model cannot merge tokens in an image tower."""
        reason = None
        if not self.has_image_tower:
            reason = f"{self.model_type} has no image tower"
        elif self.semantics == "release":
            reason = "semantics='release' merges nothing in the image tower"
        if reason is not None:
            raise ValueError(f"reduction.image_tower_merge_ratio={ratio}: {reason}; set it to 0, or leave it out")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # `from_pretrained(..., reduction=...)` must be checked too: transformers would set it after `__post_init__`.
        overrides = {name: kwargs.pop(name) for name in cls.validated_fields if name in kwargs}
        return super().from_dict({**config_dict, **overrides}, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Also writes the file with which the Auto classes load the model without `import pumer_hf`."""
        # Always anew: a config that came from a repository with `auto_map` would else be saved without the file.
        self.auto_map = remote_code.config_auto_map(type(self).__name__, self.architectures)
        remote_code.write_remote_code(save_directory)
        super().save_pretrained(save_directory, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        # What is saved does not say from which folder a tower was loaded. Of the model, transformers leaves it out.
        values = super().to_diff_dict()
        for part in self.sub_configs:
            values.get(part, {}).pop("_name_or_path", None)
        return values

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: transformers would copy our source file, which is a part of a package, beside the model."""
