"""`ReducibleModel`, the base of the models that can reduce their tokens, and the functions that find one."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..configuration import PuMerConfig
from ..reducers import AnyReduction, ReductionConfig, Schedule, TokenReducer, build_reducer
from ..reducers.budget import with_budget
from .budget import ForwardCounter
from .reduction import ReducerHost, Reduction, loading


class ReducibleModel(PreTrainedModel):
    """The base of the models that can reduce their tokens. They are backbones, or have one as their `base_model`.

    A backbone calls `self.token_reduction.build()` in its `__init__`. This sets the attributes below.
    """

    config: PuMerConfig
    reducer: TokenReducer | None
    """What reduces tokens at the site `"layers"`."""
    learned: dict[str, dict[str, Tensor]]
    """By site, the weights of the reducers that a backbone had before. A new reducer gets back those that fit."""
    learned_apart: list[TokenReducer]
    """The reducers that a backbone had before and that were trained apart, the latest last. They are used again."""

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a model, and the scorers that its schedule names: `reduction={"weights": ..., ...}`.

        The arguments are those of [`~transformers.PreTrainedModel.from_pretrained`], and the fields of the config.

        Raises:
            ValueError: the schedule is wrong, or a scorer is missing or does not fit the model.
        """
        with loading():
            model, found = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        missing = {*found["missing_keys"], *(item[0] for item in found["mismatched_keys"])}
        model.token_reduction.finish_loading([value for name, value in model.named_parameters() if name in missing])
        return (model, found) if output_loading_info else model

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Do nothing. [`ReductionHolder.save_pretrained`] writes what the Auto classes need."""

    def reducer_hosts(self) -> dict[str, ReducerHost]:
        """Return the modules of the backbone that hold a reducer, by site."""
        return {"layers": self}

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        """Make the module that carries out a part of a schedule."""
        return build_reducer(part, self.reducer_hosts()[part.site].config.hidden_size, self.config.hidden_size)

    @property
    def token_reduction(self) -> Reduction:
        """The schedule at work in this model."""
        return Reduction(self.base_model)

    @property
    def reduction(self) -> Schedule | None:
        """As [`Reduction.schedule`]."""
        return self.token_reduction.schedule

    def flops_counter(self) -> ForwardCounter:
        """Make what counts the FLOPs of the backbone under any schedule."""
        raise NotImplementedError

    def set_reduction(self, reduction: AnyReduction = None, *, flops: float | None = None, **fields: Any) -> None:
        """Change how the loaded model reduces tokens. The change applies from the next forward, and is saved.

        Args:
            reduction: any form that [`parse_reduction`] takes; None switches reduction off.
            flops: a budget for the schedule, the part of the unreduced model's multiply-adds in (0, 1). The ratios are
                scaled to it. Without another schedule, the present one is scaled.
            **fields: the fields of a method, in the place of `reduction`: `set_reduction(method="pumer", flops=0.5)`.

        Raises:
            ValueError: as in [`Reduction.set`]; or `reduction` is given, and fields too.
        """
        if fields and reduction is not None:
            raise ValueError(f"{', '.join(fields)}: give them in `reduction`, or leave `reduction` out")
        asked: AnyReduction = fields or reduction
        if flops is not None:
            schedule = self.reduction if asked is None else asked
            asked = with_budget(schedule, flops)
        self.token_reduction.set(asked)

    def scale_reduction(self, factor: float) -> None:
        """As [`Reduction.scale`]."""
        self.token_reduction.scale(factor)

    def output_lengths(self, num_text: int, num_image: int) -> list[tuple[int, int]]:
        """As [`Reduction.output_lengths`]."""
        return self.token_reduction.output_lengths(num_text, num_image)


def reduction_of(model: nn.Module) -> Reduction:
    """Return the reduction of a model. The model may be inside a wrapper, such as the `PeftModel` of adapters.

    Raises:
        ValueError: the model cannot reduce tokens.
    """
    return reducible_model(model).token_reduction


def reducible_model(model: nn.Module) -> ReducibleModel:
    """Return the model that can reduce tokens in a wrapper, such as the `PeftModel` of adapters; or `model` itself.

    Raises:
        ValueError: there is none.
    """
    for module in model.modules():
        if isinstance(module, ReducibleModel):
            return module
    raise ValueError(f"{type(model).__name__} holds no model that can reduce tokens")


def reduces_tokens(model: nn.Module) -> bool:
    """Return whether a model reduces tokens. It is False for a model that cannot."""
    return any(isinstance(module, ReducibleModel) and module.reduction is not None for module in model.modules())
