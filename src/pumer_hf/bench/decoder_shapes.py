"""Full-size shapes of published decoder models, for `pumer-hf bench --setting NAME` with random weights."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..models.decoders.family import DecoderFamily
from ..models.families import DECODERS, DECODERS_NEED


@dataclass(frozen=True)
class Shape:
    """The shape of a published checkpoint, and the image that it is measured on."""

    family: str
    """The name of its family."""
    checkpoint: str
    """The id of the checkpoint on the Hub whose `config.json` has this shape."""
    config: dict[str, Any]
    """The fields of its config that the shape needs."""
    image_tokens: int | None = None
    """Image tokens per prompt; None: one image of the usual size of the family."""
    num_layers: int | None = None
    """The decoder has only the first so many layers of the checkpoint's; None: all of them."""

    @property
    def title(self) -> str:
        """The checkpoint, and which part of it this is."""
        return self.checkpoint if self.num_layers is None else f"{self.checkpoint}, first {self.num_layers} layers"

    def row(self) -> DecoderFamily:
        """Return the family.

        Raises:
            ValueError: the installed transformers is too old for decoders.
        """
        if self.family not in DECODERS:
            raise ValueError(f"{self.checkpoint}: decoder models need transformers {DECODERS_NEED} or newer")
        return DECODERS[self.family]

    def new_config(self) -> Any:
        """Return a config of our class with this shape."""
        fields = deepcopy(self.config)
        if self.num_layers is not None:
            fields["text_config"]["num_hidden_layers"] = self.num_layers
        return self.row().config_class(**fields)


def shape_of(name: str) -> Shape:
    """Return a shape by its name.

    Raises:
        ValueError: there is no such shape.
    """
    if name not in SHAPES:
        raise ValueError(f"setting={name!r}: choose one of {', '.join(SHAPES)}, or a backbone and a task: vilt/vqa")
    return SHAPES[name]


def siglip_400m(image_size: int, layers: int = 27, **other: Any) -> dict[str, Any]:
    """Return the config of SigLIP-so400m with patches of 14 pixels."""
    fields = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": layers, "num_attention_heads": 16}
    sizes = {"image_size": image_size, "patch_size": 14, "vision_use_head": False}
    return {"model_type": "siglip_vision_model", **fields, **sizes, **other}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a config without some fields."""
    return {name: value for name, value in config.items() if name not in names}


CLIP_LARGE = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
VICUNA_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 32064,
}
QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "vocab_size": 152064,
}
QWEN2_5_3B = {
    **QWEN2_7B,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
QWEN3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5000000.0,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
QWEN3_1_7B = {
    **QWEN3_8B,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
}
QWEN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}}
QWEN_TOKENS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
QWEN3_VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 2304,
}

SHAPES: dict[str, Shape] = {
    "paligemma": Shape(
        "paligemma",
        "google/paligemma-3b-pt-224",
        {
            "vision_config": siglip_400m(224, projection_dim=2048),
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "vocab_size": 257216,
            },
            "image_token_index": 257152,
            "projection_dim": 2048,
        },
    ),
    "llava": Shape(
        "llava",
        "llava-hf/llava-1.5-7b-hf",
        {"vision_config": CLIP_LARGE, "text_config": VICUNA_7B, "image_token_index": 32000},
    ),
    "llava_8_layers": Shape(
        "llava",
        "llava-hf/llava-1.5-7b-hf",
        {"vision_config": CLIP_LARGE, "text_config": VICUNA_7B, "image_token_index": 32000},
        num_layers=8,
    ),
    "llava_next": Shape(
        "llava_next",
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        {
            "vision_config": CLIP_LARGE,
            "text_config": VICUNA_7B,
            "image_token_index": 32000,
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        },
    ),
    "llava_onevision": Shape(
        "llava_onevision",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        {
            "vision_config": siglip_400m(384, layers=26),
            "text_config": {"model_type": "qwen2", **QWEN2_7B, "vocab_size": 152000},
            "image_token_index": 151646,
            "video_token_index": 151647,
            "vision_feature_select_strategy": "full",
            "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
        },
    ),
    "qwen2_vl": Shape(
        "qwen2_vl",
        "Qwen/Qwen2-VL-7B-Instruct",
        {
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "hidden_size": 3584,
                "num_heads": 16,
                "mlp_ratio": 4,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
            "text_config": {**QWEN2_7B, **QWEN_ROPE},
            **QWEN_TOKENS,
        },
        image_tokens=1296,
    ),
    "qwen2_5_vl_3b": Shape(
        "qwen2_5_vl",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        {
            "vision_config": {**QWEN2_5_VISION, "out_hidden_size": 2048},
            "text_config": {**QWEN2_5_3B, **QWEN_ROPE},
            **QWEN_TOKENS,
            "tie_word_embeddings": True,
        },
        image_tokens=1296,
    ),
    "qwen2_5_vl": Shape(
        "qwen2_5_vl",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        {
            "vision_config": {**QWEN2_5_VISION, "out_hidden_size": 3584},
            "text_config": {**QWEN2_7B, **QWEN_ROPE},
            **QWEN_TOKENS,
        },
        image_tokens=1296,
    ),
    "qwen3_vl_2b": Shape(
        "qwen3_vl",
        "Qwen/Qwen3-VL-2B-Instruct",
        {
            "vision_config": {
                **QWEN3_VISION,
                "depth": 24,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "out_hidden_size": 2048,
                "deepstack_visual_indexes": [5, 11, 17],
            },
            "text_config": QWEN3_1_7B,
            **QWEN_TOKENS,
            "tie_word_embeddings": True,
        },
        image_tokens=1024,
    ),
    "qwen3_vl": Shape(
        "qwen3_vl",
        "Qwen/Qwen3-VL-8B-Instruct",
        {
            "vision_config": {**QWEN3_VISION, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24]},
            "text_config": QWEN3_8B,
            **QWEN_TOKENS,
        },
        image_tokens=1024,
    ),
    "internvl3": Shape(
        "internvl",
        "OpenGVLab/InternVL3-8B-hf",
        {
            "vision_config": {
                **without(CLIP_LARGE, "model_type", "projection_dim"),
                "image_size": [448, 448],
                "patch_size": [14, 14],
            },
            "text_config": {"model_type": "qwen2", **QWEN2_7B, "vocab_size": 151674},
            "image_token_id": 151667,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
        },
        image_tokens=13 * 256,
    ),
    "gemma3": Shape(
        "gemma3",
        "google/gemma-3-4b-it",
        {
            "vision_config": siglip_400m(896),
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "sliding_window": 1024,
                "query_pre_attn_scalar": 256,
                "vocab_size": 262208,
            },
            "mm_tokens_per_image": 256,
            "image_token_index": 262144,
            "boi_token_index": 255999,
            "eoi_token_index": 256000,
        },
    ),
    "smolvlm": Shape(
        "smolvlm",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        {
            "vision_config": without(siglip_400m(384), "model_type", "vision_use_head"),
            "text_config": {
                **VICUNA_7B,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 24,
                "max_position_embeddings": 8192,
                "vocab_size": 49280,
            },
            "image_token_id": 49190,
            "scale_factor": 3,
        },
        image_tokens=17 * 81,
    ),
    "smolvlm_256m": Shape(
        "smolvlm",
        "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        {
            "vision_config": {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": 512,
                "patch_size": 16,
            },
            "text_config": {
                **VICUNA_7B,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "max_position_embeddings": 8192,
                "vocab_size": 49280,
            },
            "image_token_id": 49190,
            "scale_factor": 4,
        },
        image_tokens=17 * 64,
    ),
}
"""The shapes, by the name of the setting."""
