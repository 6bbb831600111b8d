"""`PuMerConfig`: the part of a model config that says how tokens are reduced."""

from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from . import remote_code
from .reducers import AnyReduction, PlainSchedule, Schedule, parse_reduction
from .reducers.pumer import PuMerReductionConfig

SEMANTICS = ("paper", "release")


class PuMerConfig(PreTrainedConfig):
    """Base of the model configs: holds `reduction`, checks it, and saves it with the model.

    Args:
        reduction: how tokens are reduced, in any form that [`parse_reduction`] takes. It is kept in plain JSON types:
            one dict, or a list of them where the model reduces at several sites. None gives the unreduced model.
        semantics: `"paper"`, or `"release"` to compute token for token what the code released with PuMer does
            ([`reducers.release`]). Only for checkpoints that were trained with that code.
        pooled_only: compute in the last layer only what `pooler_output` needs, the [CLS] of the text (METER: and that
            of the image), which attends to all tokens as before. The logits of a head stay the same. Not in the paper.
            `last_hidden_state` then has no other tokens. A last layer that reduces tokens computes all.
        task: the name of the task that the model was trained for. None: the one that its head is for.
    """

    validated_fields: ClassVar[tuple[str, ...]] = ("reduction", "semantics", "pooled_only")
    """Fields that `__post_init__` checks."""

    reduction: dict | list | None = None
    semantics: str = "paper"
    pooled_only: bool = False
    task: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.semantics not in SEMANTICS:
            raise ValueError(f"semantics={self.semantics!r}: choose one of {', '.join(SEMANTICS)}")
        if not isinstance(self.pooled_only, bool):
            raise ValueError(f"pooled_only={self.pooled_only!r}: must be True or False")
        self.schedule = self.checked(self.reduction)

    @property
    def schedule(self) -> Schedule | None:
        """What `reduction` says, parsed and checked. Only a change of `reduction` is parsed again."""
        if self._parsed_from != self.reduction:
            self.schedule = self.checked(self.reduction)
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule | None) -> None:
        self._schedule = schedule
        self._parsed_from = _plain(schedule)
        self.reduction = _plain(schedule)

    @property
    def sites(self) -> dict[str, int]:
        """The sites at which the model can reduce tokens, and how many layers each has."""
        return {"layers": self.num_hidden_layers}

    @property
    def num_reducible_layers(self) -> int:
        """How many layers the site `"layers"` has."""
        return self.sites["layers"]

    @property
    def max_text_length(self) -> int:
        """Most tokens of a text."""
        return self.max_position_embeddings

    @property
    def max_patches(self) -> int | None:
        """Most patches of an image that the model takes, an even sample of them; None: it takes all."""
        return None

    def checked(self, reduction: AnyReduction) -> Schedule | None:
        """`reduction`, parsed; raises `ValueError` if it is wrong or does not fit this model."""
        schedule = parse_reduction(reduction)
        if schedule is not None:
            self.check_schedule(schedule)
        return schedule

    def check_schedule(self, schedule: Schedule) -> None:
        """Raise `ValueError` if a schedule does not fit this model."""
        for part in schedule.parts:
            if part.site not in self.sites:
                sites = ", ".join(map(repr, self.sites))
                raise ValueError(f"reduction.site={part.site!r}: {self.model_type} can reduce at {sites}")
            if self.semantics == "release" and (part.method, part.site) != (PuMerReductionConfig.method, "layers"):
                raise ValueError(
                    f"reduction.method={part.method!r} at site {part.site!r}: semantics='release' knows only 'pumer' "
                    "at site 'layers'"
                )
            part.validate_depth(self.sites[part.site])

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # `from_pretrained(..., reduction=...)` must be checked too: transformers would set it after `__post_init__`.
        overrides = {name: kwargs.pop(name) for name in cls.validated_fields if name in kwargs}
        return super().from_dict({**config_dict, **overrides}, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Also writes the file with which the Auto classes load the model without `import pumer_hf`."""
        # Always anew: a config that came from a repository with `auto_map` would else be saved without the file.
        self.auto_map = remote_code.config_auto_map(type(self).__name__, self.architectures)
        remote_code.write_remote_code(save_directory, type(self).__name__)
        super().save_pretrained(save_directory, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        # `reduction` says the same as the parsed schedule.
        values = super().to_dict()
        for name in ("_schedule", "_parsed_from"):
            values.pop(name, None)
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        # What is saved does not say from which folder a tower was loaded. Of the model, transformers leaves it out.
        values = super().to_diff_dict()
        for part in self.sub_configs:
            values.get(part, {}).pop("_name_or_path", None)
        if self.task is None:
            values.pop("task", None)
        return values

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing: transformers would copy our source file, which is a part of a package, beside the model."""


def _plain(schedule: Schedule | None) -> PlainSchedule | None:
    """The plain form of a schedule, each time a new one, as `reduction` may be changed in place."""
    return None if schedule is None else schedule.to_dict()
