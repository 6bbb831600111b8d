"""`PuMerMeterConfig`: the two towers and the blocks of cross-layers."""

from typing import Any, ClassVar

from transformers import CLIPVisionConfig, PreTrainedConfig, RobertaConfig

from ....configuration import PuMerConfig

CO_ATTENTION = ("parallel", "sequential")

# The defaults of METER's towers: roberta-base, and CLIP ViT-B/16 without its last block.
TEXT_DEFAULTS: dict[str, Any] = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
VISION_DEFAULTS: dict[str, Any] = {"image_size": 384, "patch_size": 16, "num_hidden_layers": 11}


class PuMerMeterConfig(PuMerConfig):
    """The config of a METER model.

    Args:
        text_config: the text tower, a [`RobertaConfig`] or its dict; default: roberta-base.
        vision_config: the image tower, a [`CLIPVisionConfig`] or its dict; default: CLIP ViT-B/16 at 384 pixels.
            Its `num_hidden_layers` counts the blocks that run. METER drops the last one of CLIP, so it is 11, not 12.
        image_size: side of the square image in pixels, a multiple of the patch size; default: that of `vision_config`.
        co_attention: which text the image layer of a block attends to. For `"parallel"` it is the text that came into
            the block, as in published METER. For `"sequential"` it is the output of the block's text layer, as in
            PuMer's release.
        num_hidden_layers: blocks of cross-layers, at least 1. A block has a text layer and an image layer.
            `reduction.layers` counts the blocks from 0.
        hidden_size: width of the cross-layers, a multiple of `num_attention_heads`.
        num_attention_heads: attention heads of each cross-layer.
        intermediate_size: width of the feed-forward part of each cross-layer.
        hidden_act: activation of the feed-forward part.
        hidden_dropout_prob: dropout of the cross-layers, in [0, 1); the towers have their own.
        attention_probs_dropout_prob: attention dropout of the cross-layers, in [0, 1).
        layer_norm_eps: epsilon in the LayerNorm of the cross-layers; 1e-12 in METER.
        initializer_range: standard deviation of new weights outside of the towers.
        modality_type_vocab_size: 2 for text and image; NLVR2, with two images, has 3.
        num_images: images per example, for [`PuMerMeterForImagesAndTextClassification`]; -1 elsewhere.
        reduction: how tokens are reduced ([`PuMerConfig`]).
        semantics: `"paper"` or `"release"` ([`PuMerConfig`]).
        pooled_only: compute in the last block only what the heads need ([`PuMerConfig`]).
    """

    model_type = "pumer_meter"
    keys_to_ignore_at_inference: ClassVar = [
        "hidden_states",
        "attentions",
        "cross_attentions",
        "image_attentions",
        "image_cross_attentions",
        "reduction",
    ]
    sub_configs: ClassVar = {"text_config": RobertaConfig, "vision_config": CLIPVisionConfig}
    validated_fields: ClassVar[tuple[str, ...]] = (*PuMerConfig.validated_fields, "co_attention", "image_size")

    text_config: Any = None
    vision_config: Any = None
    image_size: int | None = None
    co_attention: str = "parallel"
    num_hidden_layers: int = 6
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    modality_type_vocab_size: int = 2
    num_images: int = -1

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _tower(RobertaConfig, self.text_config, TEXT_DEFAULTS)
        self.vision_config = _tower(CLIPVisionConfig, self.vision_config, VISION_DEFAULTS)
        if self.image_size is None:
            self.image_size = self.vision_config.image_size
        self.vision_config.image_size = self.image_size
        super().__post_init__(**kwargs)
        if self.co_attention not in CO_ATTENTION:
            raise ValueError(f"co_attention={self.co_attention!r}: choose one of {', '.join(CO_ATTENTION)}")
        if self.num_hidden_layers < 1:
            raise ValueError(f"num_hidden_layers={self.num_hidden_layers}: must be at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if self.image_size % self.vision_config.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of vision_config.patch_size="
                f"{self.vision_config.patch_size}"
            )

    @property
    def sites(self) -> dict[str, int]:
        """The sites at which the model can reduce tokens, and how many layers each has."""
        return {"tower": self.vision_config.num_hidden_layers, "inputs": 1, "layers": self.num_hidden_layers}

    @property
    def num_patches(self) -> int:
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2

    @property
    def max_text_length(self) -> int:
        """The most tokens that a text may have. RoBERTa's positions begin after the position of padding."""
        return self.text_config.max_position_embeddings - self.text_config.pad_token_id - 1


def _tower(config_class: type[PreTrainedConfig], value: Any, defaults: dict[str, Any]) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        value = value.to_dict()  # a copy: transformers changes the configs of a model
        value = {name: item for name, item in value.items() if name != "model_type"}
    return config_class(**(defaults if value is None else value))
