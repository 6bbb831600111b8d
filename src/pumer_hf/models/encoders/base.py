"""The base of all model families. It has the reducer of a model, and the plans of its layers."""

from typing import ClassVar, Literal

import torch
from torch import nn

from ...configuration import PuMerConfig
from ...reducers import ReductionConfig, TokenReducer
from ...reducers.base import HasInit
from ...reducers.release import ReleaseReducer
from ...tokens import Evidence, LayerTrace, TokenPair
from ..offload import execution_device, is_offloaded
from ..profiling import reduction_region
from ..reducible import ReducibleModel
from ..reduction import ReducerHost
from .budget import EncoderCounter
from .chunking import MIN_CHUNK
from .outputs import LayerRecord
from .plan import LayerPlan


class InputSite(nn.Module):
    """What holds the reducer of the site `"inputs"`, before the first layer in which text and image meet.

    Args:
        config: the config of the model.
    """

    def __init__(self, config: PuMerConfig):
        super().__init__()
        self.config = config
        self.reducer: TokenReducer | None = None

    def forward(self, pair: TokenPair) -> tuple[TokenPair, LayerTrace | None]:
        """Reduce the tokens that come into the first layer. They are compared by their states."""
        if self.reducer is None:
            return pair, None
        with reduction_region():
            text, image = pair.text.states.detach(), pair.image.states.detach()
            return self.reducer(0, pair, Evidence(None, text, image, image.dtype))


class PuMerPreTrainedModel(ReducibleModel):
    """The base of all models here. The backbone has a `reducer`. Heads reach it through `base_model`."""

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
    """The class that reduces tokens with `semantics="release"`."""
    pooled_size: int
    """Width of `pooler_output`. Only a backbone has this attribute."""
    inputs: InputSite
    """What reduces tokens at the site `"inputs"`. Only a backbone has this attribute."""

    def reducer_hosts(self) -> dict[str, ReducerHost]:
        return {"inputs": self.inputs, **super().reducer_hosts()}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HasInit):
            module.reset()

    @property
    def device(self) -> torch.device:
        """The device for the inputs: that of the weights, or the one to which offloaded weights are loaded."""
        device = super().device
        return execution_device(self) if device.type == "meta" else device

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        if self.config.semantics == "release":
            return self.release_reducer(part, self.config.hidden_size)
        return super().make_reducer(part)

    def flops_counter(self) -> EncoderCounter:
        return EncoderCounter(self.base_model)

    def resize_images(self, image_size: int) -> None:
        """Make the model take square images of another size. The position embeddings are interpolated.

        The new size is saved with the model.

        Args:
            image_size: side in pixels, a multiple of the patch size.
        """
        if is_offloaded(self):
            raise ValueError(
                f"image_size={image_size}: the weights are offloaded: load the model without offloading, resize it, "
                "save it, and load it again"
            )
        self._resize_images(image_size)
        self.config.budget = None  # it was for images of another size

    def _resize_images(self, image_size: int) -> None:
        """Do the work of `resize_images`. Each family has its own."""
        raise NotImplementedError

    @property
    def pools_only(self) -> bool:
        """Whether the last layer computes only the [CLS] that the heads read (`config.pooled_only`).

        A last layer that reduces tokens computes all of them.
        """
        reducer, last = self.base_model.reducer, self.config.num_reducible_layers - 1
        return self.config.pooled_only and (reducer is None or not reducer.config.reduces(last))

    def reduce_inputs(self, pair: TokenPair, record: LayerRecord) -> TokenPair:
        """Reduce the tokens that come into the first layer, if the schedule says so, and record the trace."""
        pair, trace = self.base_model.inputs(pair)
        record.add_trace(trace)
        return pair

    def plans(self, pair: TokenPair, with_attentions: bool) -> list[LayerPlan]:
        """Return what each reducible layer has to do in one forward.

        There is a plan for every layer, unless the reducer says after which one the model stops
        ([`TokenReducer.stops_after`]).

        Args:
            pair: the tokens that come into the first of these layers.
            with_attentions: whether the layers return their attention probabilities.
        """
        batch_size, num_text = pair.text.mask.shape
        chunk = self.chunk_size(batch_size, num_text, pair.image.mask.shape[1])
        reducer, last = self.base_model.reducer, self.config.num_reducible_layers - 1
        end = last if reducer is None or reducer.stops_after is None else reducer.stops_after
        plans = []
        for index in range(end + 1):
            own = reducer.at(index) if reducer is not None and reducer.config.reduces(index) else None
            num_queries = 1 if index == last and self.pools_only else None
            plans.append(LayerPlan(index, own, num_queries, chunk, with_attentions))
        return plans

    def chunk_size(self, batch_size: int, num_text: int, num_image: int) -> int | None:
        """Return how many tokens a feed-forward part takes at once: as many as leave the last layer.

        So the layers before the reduction do not set the peak of the memory.

        Args:
            batch_size: number of examples.
            num_text: text tokens that come into the first reducible layer.
            num_image: image tokens that come into the first reducible layer.

        Returns:
            A number of tokens of the batch, or None for all. It is None in three cases: nothing is reduced; gradients
            are computed, which need all states anyway; or the code is compiled, and the compiler plans the memory.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not self.token_reduction.reducers:
            return None
        return max(batch_size * sum(self.token_reduction.lengths_at("layers", num_text, num_image)[-1]), MIN_CHUNK)

    def parameter_group(self, parameter_name: str) -> Literal["backbone", "cross_modal", "classifier"]:
        """Return the part of the model of a parameter. The parts can learn at different rates (PuMer, Table 5)."""
        _, in_backbone, name = f".{parameter_name}".partition(f".{self.base_model_prefix}.")
        if self.base_model is self:
            name = parameter_name
        elif not in_backbone:
            return "classifier"
        return "cross_modal" if name.split(".")[0] in self.cross_modal_modules else "backbone"


def unwrapped(model: nn.Module) -> PuMerPreTrainedModel:
    """Return the model of this package inside a wrapper, such as the `PeftModel` of adapters; or `model` itself."""
    for module in model.modules():
        if isinstance(module, PuMerPreTrainedModel):
            return module
    raise ValueError(f"{type(model).__name__} holds no model of pumer_hf")
