"""`DecoderFamily`: what the reduction has to know about a family of transformers' own decoder models."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ...reducers import ReductionConfig, Schedule
from ...reducers.base import Layout
from ...reducers.pumer import PuMerReductionConfig
from ...reducers.pumer_inputs import PuMerInputsConfig
from .grids import TokenGrids
from .images import Reduced
from .prompt import IGNORED, Cut, contiguous_positions

FLASH = "flash"
EARLY = 2
"""In so many first layers, the attention of the text says little about the image (`docs/decoders.md`)."""


@dataclass(frozen=True)
class DecoderFamily:
    """A family of decoder models of transformers. Its class is used as it is: it is neither copied nor patched.

    Images are encoded before the decoder. What comes out is cut, and the prompt with it. So the decoder, its cache and
    `generate` never see the tokens that are gone.
    """

    name: str
    """The name in flags and file names: `"llava"`."""
    title: str
    """What people call it: `"LLaVA-1.5"`."""
    model_class: type[PreTrainedModel]
    """Our class, which also loads the checkpoints of the stock class. It gets the row as its attribute `family`."""
    stock_class: type[PreTrainedModel]
    """The class of transformers."""
    multimodal_rope: bool = False
    """Whether a token has positions in time, height and width (M-RoPE) beside that in the text."""
    first_position: int = 0
    """The position of the first token, if the model is called without positions."""
    no_layers: str = ""
    """Why its models cannot reduce inside the decoder; empty if they can."""
    shortened_prompt: bool = False
    """Whether the decoder has a memory that a mask does not reach. A cut then equals the shortened prompt alone, and
    not the whole prompt with the cut tokens masked."""
    grids: TokenGrids | None = None
    """Where the tokens of an image lie on it, one of the functions in `grids.py`. None if they are no grid, so that
    they cannot be drawn."""

    def __post_init__(self) -> None:
        self.model_class.family = self
        self.model_class.config_class.family = self

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        """The config of our class."""
        return self.model_class.config_class

    @property
    def stock_type(self) -> str:
        """The `model_type` of stock checkpoints."""
        return self.stock_class.config_class.model_type

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites at which its models can reduce tokens."""
        return ("inputs",) if self.no_layers else ("inputs", "layers")

    def sites_of(self, config: Any) -> dict[str, int]:
        """Return the sites of a model, and how many layers each has. Nothing runs after the last layer."""
        if self.no_layers:
            return {"inputs": 1}
        return {"inputs": 1, "layers": config.get_text_config().num_hidden_layers - 1}

    def first_layer(self, config: Any) -> int:
        """Return the first layer of a model after which tokens can be reduced.

        After earlier ones, DeepStack adds features of the image tower to image tokens, and expects them all.
        """
        features = getattr(config.vision_config, "deepstack_visual_indexes", None) or ()
        return max(len(features) - 1, 0)

    def layout(self, config: Any) -> Layout:
        """Return what the usual schedule of a method depends on. It cuts behind the first layers ([`EARLY`])."""
        number = config.get_text_config().num_hidden_layers
        first = max(self.first_layer(config), min(EARLY, number - 2))
        return Layout({**self.sites_of(config), "layers": number}, first, in_decoder=True)

    def check_schedule(self, config: Any, schedule: Schedule) -> None:
        """Raise `ValueError` if a schedule does not fit a model of the family.

        Args:
            config: the config of the model.
            schedule: the schedule.
        """
        for part in schedule.parts:
            self.check_part(config, part)

    def check_part(self, config: Any, part: ReductionConfig) -> None:
        """Raise `ValueError` if a part of a schedule does not fit a model of the family."""
        if part.site not in self.sites:
            sites = ", ".join(map(repr, self.sites))
            reason = f": {self.no_layers}" if part.site == "layers" and self.no_layers else ""
            raise ValueError(f"reduction.site={part.site!r}: {self.title} can reduce at {sites}{reason}")
        part.check_decoder()
        if part.site != "layers":
            return
        for name in part.decoder_fields:
            raise ValueError(
                f"reduction.{name}={getattr(part, name)!r}: only site 'inputs' has it: inside the decoder all image "
                "tokens of a prompt are one set, with their original positions: leave it out"
            )
        last = config.get_text_config().num_hidden_layers - 1
        for layer in part.layers:
            if layer >= last:
                raise ValueError(
                    f"reduction.layers={list(part.layers)}: tokens are cut after a layer, so choose layers below the "
                    f"last one of the decoder, which is layer {last}"
                )
            if layer < self.first_layer(config):
                raise ValueError(
                    f"reduction.layers={list(part.layers)}: {self.title} adds features of the image tower to all "
                    f"image tokens in its first layers: choose layers from {self.first_layer(config)} on"
                )

    def preset(self, config: Any, site: str) -> ReductionConfig:
        """Return the schedule of PuMer to begin with for a model of the family.

        Before the decoder, each image keeps a quarter of its tokens. Inside it, half of the image tokens go after a
        quarter of the layers, half of the rest after two quarters, and again after three. The attention of earlier
        layers says little about what the text asks for.

        Args:
            config: the config of the model.
            site: `"inputs"` or `"layers"`.

        Raises:
            ValueError: the models of the family cannot reduce there.
        """
        part: ReductionConfig
        if site == "inputs":
            part = PuMerInputsConfig((), site=site, keep_ratio=0.25)
        else:
            part = PuMerReductionConfig(**PuMerReductionConfig.usual(site, self.layout(config)))
        self.check_part(config, part)
        return part

    def image_token_id(self, config: Any) -> int:
        """Return the token of the prompt that stands for an image token."""
        return int(config.image_token_id)

    def image_inputs(self, model: PreTrainedModel) -> set[str]:
        """Return the names of the inputs that the image encoder of a model reads."""
        return {name for name in inspect.signature(model.base_model.get_image_features).parameters if name != "kwargs"}

    def encode_images(self, model: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[Any, set[str]]:
        """Encode the images of a batch.

        Args:
            model: a model of `stock_class`.
            inputs: keyword arguments of its forward.

        Returns:
            What the image encoder gives, and the names of the inputs that belong to it alone.
        """
        names = self.image_inputs(model)
        given = {name: inputs[name] for name in names if inputs.get(name) is not None}
        return model.base_model.get_image_features(**given, return_dict=True), names

    def positions(
        self, model: PreTrainedModel, inputs: Mapping[str, Any], cut: Cut, contiguous: bool, generating: bool
    ) -> Tensor:
        """Return the positions of what stays of the prompts: long (B, L'), or (4, B, L') with M-RoPE.

        With M-RoPE, the first row holds the places in the text. It has no gaps, because gaps would look like several
        texts in one row. The other rows are time, height and width.

        Args:
            model: the model.
            inputs: keyword arguments of its forward, before the cut.
            cut: what stays.
            contiguous: whether the positions have no gaps.
            generating: whether `generate` asks, which counts positions from 0 and leaves padding out.
        """
        first = 0 if generating else self.first_position
        if contiguous:
            positions = contiguous_positions(cut.mask) + first
            return positions.expand(4, -1, -1) if self.multimodal_rope else positions
        if not self.multimodal_rope:
            return cut.take(self.whole_positions(inputs, generating) + first)
        space = cut.take(self.space_positions(model, inputs, generating))
        return torch.cat([contiguous_positions(cut.mask).unsqueeze(0), space])

    def whole_positions(self, inputs: Mapping[str, Any], generating: bool) -> Tensor:
        """Return the positions of the whole prompts as transformers counts them, long (B, L)."""
        input_ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        if inputs.get("position_ids") is not None:
            return inputs["position_ids"].expand(len(input_ids), -1) - (0 if generating else self.first_position)
        if mask is None or not generating:
            return torch.arange(input_ids.shape[1], device=input_ids.device).expand(len(input_ids), -1)
        return contiguous_positions(mask)

    def space_positions(self, model: PreTrainedModel, inputs: Mapping[str, Any], generating: bool) -> Tensor:
        """Return the positions in time, height and width of the whole prompts, long (3, B, L)."""
        if inputs.get("position_ids") is not None:
            return inputs["position_ids"][-3:]
        if inputs.get("mm_token_type_ids") is None:
            raise ValueError("mm_token_type_ids: missing: make the inputs with the processor of the model")
        rope_index: Any = model.base_model.get_rope_index
        names = inspect.signature(rope_index).parameters
        positions, _ = rope_index(**{name: inputs.get(name) for name in names if name != "kwargs"})
        return positions

    def check(self, model: PreTrainedModel, contiguous: bool) -> None:
        """Raise `ValueError` if original positions would be misread by the attention of a model."""
        attention = str(getattr(model.config.get_text_config(), "_attn_implementation", None) or "")
        if FLASH in attention and not contiguous and not self.multimodal_rope:
            raise ValueError(
                f"reduction.positions='original': with attn_implementation={attention!r}, gaps in the positions look "
                "like several texts in one row: set positions='contiguous', or attn_implementation='sdpa'"
            )


@dataclass(frozen=True)
class ImageFeatures:
    """The output of an image encoder, taken apart: its items, and all their tokens in a row."""

    output: Any
    lengths: tuple[int, ...]
    """Tokens of each item."""
    features: Tensor
    """float (N, D)."""
    in_list: bool
    """Whether the model has the items in a list. If not, they are equally long, in one tensor."""

    @classmethod
    def of(cls, output: Any) -> "ImageFeatures":
        """Take the output of `get_image_features` apart."""
        pooled = output.pooler_output
        in_list = not isinstance(pooled, Tensor)
        items = list(pooled) if in_list else [pooled] if pooled.ndim == 2 else list(pooled)
        return cls(output, tuple(len(item) for item in items), torch.cat(items), in_list)

    @torch.compiler.disable
    def after(self, reduced: Reduced) -> Any:
        """Return the output of an image encoder that gives the reduced tokens. The old one is not changed."""
        counts = reduced.counts(self.lengths)
        features = reduced.features.to(self.features.dtype)
        output = type(self.output)(**dict(self.output))
        # one token per item, so that `generate` can tell the prompts apart when it repeats them
        output.pooler_output = list(features.split(counts)) if self.in_list else features.unsqueeze(1)
        layers = getattr(self.output, "deepstack_features", None)
        if layers is not None:
            output.deepstack_features = [self._moved(layer, reduced, counts) for layer in layers]
        return output

    def _moved(self, layer: Tensor | Sequence[Tensor], reduced: Reduced, counts: list[int]) -> Tensor | list[Tensor]:
        if isinstance(layer, Tensor):
            return reduced.move(layer)
        return list(reduced.move(torch.cat(list(layer))).split(counts))


def cut_inputs(inputs: Mapping[str, Any], cut: Cut, pad_token_id: int) -> dict[str, Any]:
    """Return the inputs of a forward with shorter prompts. What has one value per token is cut.

    Args:
        inputs: keyword arguments of a forward, without those of the image encoder.
        cut: what stays.
        pad_token_id: the token of padding.
    """
    fills = {"input_ids": pad_token_id, "labels": IGNORED}
    shape = (*cut.index.shape[:1], cut.length)
    return {
        name: cut.take(value, fills.get(name, 0))
        if isinstance(value, Tensor) and value.shape == shape and not value.is_floating_point()
        else value
        for name, value in inputs.items()
    }


def pad_token_of(model: nn.Module) -> int:
    """Return the token with which shorter prompts are padded. It is masked, so any token but a placeholder will do."""
    config: Any = model.config
    for owner in (config, config.get_text_config(), getattr(model, "generation_config", None)):
        token = getattr(owner, "pad_token_id", None)
        if isinstance(token, int) and token >= 0 and token != getattr(config, "image_token_id", None):
            return token
    return 0
