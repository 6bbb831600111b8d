"""`ReductionHolder`: the part of a model config that says how tokens are reduced. `PuMerConfig`: that of encoders."""

from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from . import remote_code
from .reducers import AnyReduction, PlainSchedule, Schedule, parse_reduction
from .reducers.base import Layout
from .reducers.pumer import PuMerReductionConfig

SEMANTICS = ("paper", "release")


class ReductionHolder(PreTrainedConfig):
    """The part of a model config that holds `reduction`, checks it, and saves it with the model.

    Args:
        reduction: how tokens are reduced, in any form that [`parse_reduction`] takes. It is kept in plain JSON types:
            one dict, or a list of them for several methods at different sites, or in different layers of one site.
            None gives the unreduced model. With a budget, such as `{"method": "pumer", "flops": 0.5}`, the model finds
            the ratios when it is made or loaded.
        budget: a record of the budget for which the ratios were found, as [`Budget`] makes it. None: no budget was
            asked for, or the schedule has changed since.
    """

    validated_fields: ClassVar[tuple[str, ...]] = ("reduction",)
    """Fields that `__post_init__` checks."""

    reduction: dict | list | None = None
    budget: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.schedule = self.checked(self.reduction)

    @property
    def schedule(self) -> Schedule | None:
        """`reduction`, parsed and checked. It is parsed again only after a change."""
        if self._parsed_from != self.reduction:
            self.schedule = self.checked(self.reduction)
            self.budget = None
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule | None) -> None:
        self._schedule = schedule
        self._parsed_from = _plain(schedule)
        self.reduction = _plain(schedule)

    @property
    def sites(self) -> dict[str, int]:
        """The sites at which the model can reduce tokens, and how many layers each has."""
        return {"inputs": 1}

    @property
    def layout(self) -> Layout:
        """What the usual schedule of a method depends on."""
        return Layout(self.sites)

    def checked(self, reduction: AnyReduction) -> Schedule | None:
        """Parse `reduction`; raises `ValueError` if it is wrong or does not fit this model."""
        schedule = None if reduction is None else parse_reduction(reduction, self.layout)
        if schedule is not None:
            self.check_schedule(schedule)
        return schedule

    def check_schedule(self, schedule: Schedule) -> None:
        """Raise `ValueError` if a schedule does not fit this model."""
        for part in schedule.parts:
            if part.site not in self.sites:
                sites = ", ".join(map(repr, self.sites))
                raise ValueError(f"reduction.site={part.site!r}: {self.model_type} can reduce at {sites}")
            part.validate_depth(self.sites[part.site])

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # `from_pretrained(..., reduction=...)` must be checked too. transformers would set it after `__post_init__`.
        overrides = {name: kwargs.pop(name) for name in cls.validated_fields if name in kwargs}
        saved = config_dict.get("reduction")
        if "reduction" in overrides:
            overrides["budget"] = None
        loaded = super().from_dict({**config_dict, **overrides}, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if overrides.get("reduction") is not None and saved is not None:
            config._learn_forms(parse_reduction(saved))
        return loaded

    def _learn_forms(self, saved: Schedule | None) -> None:
        """Give the schedule the form of the scorer that the checkpoint holds."""
        schedule = self.schedule
        if schedule is not None and saved is not None:
            self.schedule = schedule.with_learned(saved.parts)

    def to_dict(self) -> dict[str, Any]:
        # `reduction` holds the same schedule, so the parsed one is not saved.
        values = super().to_dict()
        if self.budget is None or self._parsed_from != self.reduction:
            values.pop("budget", None)
        for name in ("_schedule", "_parsed_from"):
            values.pop(name, None)
        return values

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the config, and the file with which the Auto classes load the model without `import pumer_hf`."""
        # The file is written each time. Otherwise a config that was loaded with `auto_map` would be saved without it.
        self.auto_map = remote_code.config_auto_map(type(self).__name__, self.architectures)
        remote_code.write_remote_code(save_directory, type(self).__name__)
        super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Do nothing. transformers would copy our source file next to the model, but it is a part of a package."""


class PuMerConfig(ReductionHolder):
    """The base of the configs of the encoders.

    Args:
        reduction: see [`ReductionHolder`].
        semantics: `"paper"`, or `"release"` to compute, token for token, what the code released with PuMer computes
            ([`reducers.release`]). The second is only for checkpoints that were trained with that code.
        pooled_only: compute in the last layer only what `pooler_output` needs: the [CLS] of the text, and in METER the
            [CLS] of the image too. It attends to all tokens as before, so the logits of a head stay the same.
            `last_hidden_state` then has no other tokens. A last layer that reduces tokens still computes all. This
            option is not in the paper.
        task: the name of the task that the model was trained for. None: the task of its head.
    """

    validated_fields: ClassVar[tuple[str, ...]] = ("reduction", "semantics", "pooled_only")

    semantics: str = "paper"
    pooled_only: bool = False
    task: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.semantics not in SEMANTICS:
            raise ValueError(f"semantics={self.semantics!r}: choose one of {', '.join(SEMANTICS)}")
        if not isinstance(self.pooled_only, bool):
            raise ValueError(f"pooled_only={self.pooled_only!r}: must be True or False")
        super().__post_init__(**kwargs)

    @property
    def sites(self) -> dict[str, int]:
        """The sites at which the model can reduce tokens, and how many layers each has."""
        return {"inputs": 1, "layers": self.num_hidden_layers}

    @property
    def num_reducible_layers(self) -> int:
        """How many layers the site `"layers"` has."""
        return self.sites["layers"]

    @property
    def max_text_length(self) -> int:
        """The most tokens that a text may have."""
        return self.max_position_embeddings

    @property
    def num_patches(self) -> int:
        """How many patches an image of the size of the model has, at most [`max_patches`]."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def max_patches(self) -> int | None:
        """The most patches that the model takes of an image, as an even sample; None if it takes all."""
        return None

    def check_schedule(self, schedule: Schedule) -> None:
        """Raise `ValueError` if a schedule does not fit this model."""
        super().check_schedule(schedule)
        for part in schedule.parts:
            if self.semantics == "release" and (part.method, part.site) != (PuMerReductionConfig.method, "layers"):
                raise ValueError(
                    f"reduction.method={part.method!r} at site {part.site!r}: semantics='release' knows only 'pumer' "
                    "at site 'layers'"
                )
            if part.varies and any(other.site == "layers" for other in schedule.parts):
                raise ValueError(
                    "reduction.keep_mass: a part at site 'layers' counts its ratios from the longest example of the "
                    "batch, so an answer would depend on the other examples: give keep_ratio or num_keep"
                )
            for name in part.decoder_fields:
                raise ValueError(f"reduction.{name}={getattr(part, name)!r}: only decoder models understand it")

    def to_diff_dict(self) -> dict[str, Any]:
        # The folder that a tower was loaded from is not saved. For the model itself, transformers leaves it out.
        values = super().to_diff_dict()
        for part in self.sub_configs:
            values.get(part, {}).pop("_name_or_path", None)
        if self.task is None:
            values.pop("task", None)
        return values


def _plain(schedule: Schedule | None) -> PlainSchedule | None:
    """Return the plain form of a schedule. It is new each time, because `reduction` may be changed in place."""
    return None if schedule is None else schedule.to_dict()
