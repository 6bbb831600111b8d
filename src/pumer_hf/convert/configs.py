"""What the weights and the config of a checkpoint say about our config, for each model family."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import ViltConfig

from ..models.encoders.meter.towers import POSITION_EMBEDDING, resize_position_embeddings
from .keys import Renamed
from .released import released_meter_reduction, released_vilt_reduction

METER_POSITIONS = f"vision_model.{POSITION_EMBEDDING}"
METADATA = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "model_type",
    "transformers_version",
    "id2label",
    "label2id",
    "num_labels",
    "dtype",
)


def choose_heads(width: int, known: int | None, hidden_size: int | None = None) -> int | None:
    """Return the number of attention heads of a part. No weight shows it. It is None if nothing else says it.

    Args:
        width: the width of the part.
        known: how many heads the backbone has, if the checkpoint says it.
        hidden_size: the width of the backbone, if the part is a tower before it. A tower of the same width has `known`
            heads. In other towers heads are 64 wide, as in CLIP and RoBERTa.
    """
    if known and hidden_size in (None, width):
        return known
    if width % 64 == 0:
        return width // 64
    return known if known and width % known == 0 else None


def side_from_positions(num_positions: int, patch_size: int) -> int:
    """Return the side in pixels of the square image that has `num_positions` positions, [CLS] included."""
    side = math.isqrt(num_positions - 1)
    if side * side != num_positions - 1:
        raise ValueError(f"there are {num_positions - 1} image positions, which make no square")
    return side * patch_size


def vilt_values(renamed: Renamed, config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the fields of [`PuMerViltConfig`].

    Original and released ViLT have timm's blocks (eps 1e-6, no attention dropout) and BERT's embeddings (eps 1e-12).
    The released code builds its blocks without dropout. Stock ViLT has a config of its own.
    """
    text, image = "embeddings.text_embeddings.", "embeddings."
    vocab_size, hidden_size = renamed.shape(f"{text}word_embeddings.weight")
    _, channels, _, patch_size = renamed.shape(f"{image}patch_embeddings.projection.weight")
    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "max_position_embeddings": renamed.shape(f"{text}position_embeddings.weight")[0],
        "type_vocab_size": renamed.shape(f"{text}token_type_embeddings.weight")[0],
        "modality_type_vocab_size": renamed.shape(f"{image}token_type_embeddings.weight")[0],
        "num_channels": channels,
        "patch_size": patch_size,
        "num_hidden_layers": renamed.count("encoder.layer."),
        "intermediate_size": renamed.shape("encoder.layer.0.intermediate.dense.weight")[0],
        "qkv_bias": any(name.endswith("attention.query.bias") for name in renamed.backbone),
        "num_images": 2 if task == "nlvr2" else -1,
    }
    positions = renamed.shape(f"{image}position_embeddings")[1]
    if renamed.layout.origin == "stock" and config:
        stock = ViltConfig.from_dict(dict(config)).to_dict()
        return {**{name: value for name, value in stock.items() if name not in METADATA}, **sizes}
    sizes["image_size"] = side_from_positions(positions, patch_size)
    sizes["num_attention_heads"] = choose_heads(hidden_size, config.get("num_heads"))
    if renamed.layout.origin == "stock":
        return sizes
    released = renamed.layout.origin == "released"
    return {
        **sizes,
        "layer_norm_eps": 1e-6,
        "text_layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.0 if released else config.get("drop_rate", 0.1),
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
        "semantics": "release" if released else "paper",
        "reduction": released_vilt_reduction(config) if released else None,
    }


def meter_values(renamed: Renamed, config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the fields of [`PuMerMeterConfig`].

    In the released code the image layer of a block reads the output of its text layer (`co_attention="sequential"`).
    In the original it reads the text that came into the block.
    """
    if "swin" in str(config.get("vit", "")):
        raise ValueError(f"this METER has the image tower {config['vit']!r}: only CLIP towers are supported")
    if "roberta" not in str(config.get("tokenizer", "roberta")):
        raise ValueError(f"this METER has the text tower {config['tokenizer']!r}: only RoBERTa is supported")
    hidden_size = renamed.shape("text_projection.weight")[0]
    heads = config.get("num_heads")
    drop_rate = config.get("drop_rate", 0.1)
    released = renamed.layout.origin == "released"
    text_config, vision_config = meter_towers(renamed, heads, hidden_size)
    return {
        "text_config": text_config,
        "vision_config": vision_config,
        "hidden_size": hidden_size,
        "num_hidden_layers": renamed.count("pairs."),
        "num_attention_heads": choose_heads(hidden_size, heads),
        "intermediate_size": renamed.shape("pairs.0.text_layer.feed_forward.intermediate.weight")[0],
        "modality_type_vocab_size": renamed.shape("token_type_embeddings.weight")[0],
        "num_images": 2 if task == "nlvr2" else -1,
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": drop_rate,
        "attention_probs_dropout_prob": drop_rate,
        "co_attention": "sequential" if released else "parallel",
        "semantics": "release" if released else "paper",
        "reduction": released_meter_reduction(config) if released else None,
    }


def meter_towers(renamed: Renamed, heads: int | None, hidden_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configs of METER's text tower and image tower."""
    vocab_size, text_width = renamed.shape("text_model.embeddings.word_embeddings.weight")
    width, channels, _, patch_size = renamed.shape("vision_model.embeddings.patch_embedding.weight")
    text_config = {
        "vocab_size": vocab_size,
        "hidden_size": text_width,
        "num_hidden_layers": renamed.count("text_model.encoder.layer."),
        "num_attention_heads": choose_heads(text_width, heads, hidden_size),
        "intermediate_size": renamed.shape("text_model.encoder.layer.0.intermediate.dense.weight")[0],
        "max_position_embeddings": renamed.shape("text_model.embeddings.position_embeddings.weight")[0],
        "type_vocab_size": renamed.shape("text_model.embeddings.token_type_embeddings.weight")[0],
        "layer_norm_eps": 1e-5,
    }
    vision_config = {
        "hidden_size": width,
        "num_hidden_layers": renamed.count("vision_model.encoder.layers."),
        "num_attention_heads": choose_heads(width, heads, hidden_size),
        "intermediate_size": renamed.shape("vision_model.encoder.layers.0.mlp.fc1.weight")[0],
        "image_size": side_from_positions(renamed.shape(METER_POSITIONS)[0], patch_size),
        "patch_size": patch_size,
        "num_channels": channels,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    return text_config, vision_config


def resize_meter(renamed: Renamed, config: Any) -> None:
    """Interpolate METER's image positions to `config.image_size`, as METER does."""
    num_positions = (config.image_size // config.vision_config.patch_size) ** 2 + 1
    renamed.backbone[METER_POSITIONS] = resize_position_embeddings(renamed.backbone[METER_POSITIONS], num_positions)
