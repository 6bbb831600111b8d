"""The base of both model families: the reducer of a model, and the plans of its layers."""

from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ...reducers import ReductionConfig, TokenReducer, build_reducer, parse_reduction
from ...reducers.base import HasInit
from ...reducers.pumer import PuMerReductionConfig
from ...reducers.release import ReleaseReducer
from ...tokens import TokenPair
from ..offload import execution_device, is_offloaded, loaded_state_dict
from .chunking import MIN_CHUNK
from .plan import LayerPlan

logger = logging.get_logger(__name__)


class PuMerPreTrainedModel(PreTrainedModel):
    """Base of all models here. The backbone has a `reducer`; heads reach it through `base_model`."""

    supports_gradient_checkpointing = True
    _supports_sdpa = True
    input_modalities = ("image", "text")
    # An unreduced model does not need what a method has learned.
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"(^|\.)reducer\."]
    # The loss is a mean over the batch. This makes the Trainer average it over accumulation steps and processes.
    accepts_loss_kwargs = False
    cross_modal_modules: ClassVar[tuple[str, ...]] = ()
    """Children of the backbone in which text and image meet."""
    release_reducer: ClassVar[type[ReleaseReducer]] = ReleaseReducer
    """What reduces tokens with `semantics="release"`."""
    pooled_size: int
    """Width of `pooler_output`; a backbone has it."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HasInit):
            module.reset()

    @property
    def device(self) -> torch.device:
        """Where the inputs belong: where the weights are, or with offloaded ones where they are brought."""
        device = super().device
        return execution_device(self) if device.type == "meta" else device

    def make_reducer(self, reduction: ReductionConfig | dict[str, Any] | None) -> TokenReducer | None:
        """The module that carries out `reduction`, checked; None for None."""
        schedule = parse_reduction(self.config.checked(reduction))
        if isinstance(schedule, PuMerReductionConfig) and self.config.semantics == "release":
            return self.release_reducer(schedule, self.config.hidden_size)
        return build_reducer(schedule, self.config.hidden_size)

    @property
    def reduction(self) -> ReductionConfig | None:
        """The schedule in use: `config.reduction`, unless [`scale_reduction`] has scaled it."""
        reducer = self.base_model.reducer
        return None if reducer is None else reducer.config

    @cached_property
    def _learned(self) -> dict[str, Tensor]:
        """What the reducers that this model had before have learned."""
        return {}

    def set_reduction(self, reduction: ReductionConfig | dict[str, Any] | None) -> None:
        """Change how the loaded model reduces tokens; it takes effect at the next forward and is saved with the model.

        Args:
            reduction: any form that [`parse_reduction`] takes; None switches reduction off.

        Raises:
            ValueError: the schedule is wrong or names a layer that the model does not have.
        """
        self.config.reduction = self.config.checked(reduction)
        schedule = parse_reduction(self.config.reduction)
        backbone = self.base_model
        if schedule is not None and backbone.reducer is not None and backbone.reducer.accepts(schedule):
            backbone.reducer.config = schedule  # keeps what a method has learned
            return
        if backbone.reducer is not None:
            self._learned |= loaded_state_dict(backbone.reducer)
        backbone.reducer = self.make_reducer(schedule)
        if schedule is None or backbone.reducer is None:
            return
        backbone.reducer.to(device=self.device, dtype=self.dtype).train(self.training)
        with torch.no_grad():
            backbone.reducer.apply(self._init_weights)
        wanted = backbone.reducer.state_dict()
        known = {
            name: value
            for name, value in self._learned.items()
            if name in wanted and value.shape == wanted[name].shape
        }
        backbone.reducer.load_state_dict(known, strict=False)
        if known.keys() < wanted.keys():
            logger.warning("reduction.method=%r has parts that must learn: train the model", schedule.method)

    def scale_reduction(self, factor: float) -> None:
        """Reduce by `factor` in [0, 1] times what `config.reduction` says, for a ramp in training. Is not saved."""
        schedule = parse_reduction(self.config.reduction)
        if schedule is None:
            raise ValueError("config.reduction is None: there is nothing to scale")
        self.base_model.reducer.config = schedule.scaled(factor)

    def resize_images(self, image_size: int) -> None:
        """Take square images of another size from now on: interpolates the position embeddings, and is saved.

        Args:
            image_size: side in pixels, a multiple of the patch size.
        """
        if is_offloaded(self):
            raise ValueError(
                f"image_size={image_size}: the weights are offloaded: load the model without, resize it, save it, and "
                "load it again"
            )
        self._resize_images(image_size)

    def _resize_images(self, image_size: int) -> None:
        """What `resize_images` does in a family."""
        raise NotImplementedError

    def output_lengths(self, num_text: int, num_image: int) -> list[tuple[int, int]]:
        """(text, image) tokens that leave each reducible layer when `num_text` and `num_image` come into the first."""
        lengths = []
        for layer in range(self.config.num_reducible_layers):
            if self.reduction is not None and layer in self.reduction.layers:
                num_text, num_image = self.base_model.reducer.output_lengths(layer, num_text, num_image)
            lengths.append((num_text, num_image))
        return lengths

    def plans(self, pair: TokenPair, with_attentions: bool) -> list[LayerPlan]:
        """What each reducible layer has to do in one forward.

        Args:
            pair: the tokens that come into the first one.
            with_attentions: whether the layers return their attention probabilities.
        """
        batch_size, num_text = pair.text.mask.shape
        chunk = self.chunk_size(batch_size, num_text, pair.image.mask.shape[1])
        reducer, last = self.base_model.reducer, self.config.num_reducible_layers - 1
        plans = []
        for index in range(last + 1):
            reduces = reducer is not None and index in reducer.config.layers
            # The heads read the [CLS] alone.
            num_queries = 1 if self.config.pooled_only and index == last and not reduces else None
            plans.append(LayerPlan(index, reducer if reduces else None, num_queries, chunk, with_attentions))
        return plans

    def chunk_size(self, batch_size: int, num_text: int, num_image: int) -> int | None:
        """How many tokens a feed-forward part takes at once: as many as leave the last layer.

        So the layers before the reduction do not set the peak of the memory.

        Args:
            batch_size: examples.
            num_text: text tokens that come into the first reducible layer.
            num_image: image tokens that come into it.

        Returns:
            A number of tokens of the batch, or None for all. It is None if nothing is reduced; if what reduces
            announces no lengths; if gradients are computed, which need all the states anyway; and in compiled code, as
            the compiler plans the memory.
        """
        announces = isinstance(self.base_model.reducer, TokenReducer)
        if not announces or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        return max(batch_size * sum(self.output_lengths(num_text, num_image)[-1]), MIN_CHUNK)

    def parameter_group(self, parameter_name: str) -> Literal["backbone", "cross_modal", "classifier"]:
        """Which part of the model a parameter belongs to. The parts can learn at different rates (PuMer, Table 5)."""
        _, in_backbone, name = f".{parameter_name}".partition(f".{self.base_model_prefix}.")
        if self.base_model is self:
            name = parameter_name
        elif not in_backbone:
            return "classifier"
        return "cross_modal" if name.split(".")[0] in self.cross_modal_modules else "backbone"

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Does nothing: [`PuMerConfig.save_pretrained`] writes what the Auto classes need."""


def unwrapped(model: nn.Module) -> PuMerPreTrainedModel:
    """The model of this package inside a wrapper, such as the `PeftModel` of adapters; or `model` itself."""
    for module in model.modules():
        if isinstance(module, PuMerPreTrainedModel):
            return module
    raise ValueError(f"{type(model).__name__} holds no model of pumer_hf")
