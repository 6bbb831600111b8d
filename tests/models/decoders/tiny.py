"""Tiny models of each family of decoders, with random weights, and inputs for them."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

import pumer_hf  # noqa: F401
from pumer_hf.models.families import DECODERS

IMAGE, VIDEO, PAD, START, END = 90, 91, 0, 92, 93
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 99,
    "rms_norm_eps": 1e-5,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
    "projection_dim": 24,
}
SIGLIP = {key: value for key, value in CLIP.items() if key != "projection_dim"} | {"model_type": "siglip_vision_model"}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "embed_dim": 32,
    "num_heads": 2,
    "intermediate_size": 32,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "mlp_ratio": 2,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


IMAGES = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
QWEN_TEXT = {**TEXT, "rope_parameters": MROPE}
LINEAR_TEXT = {
    **TEXT,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
PINPOINTS = [[24, 48], [48, 24], [48, 48]]
IDEFICS = {
    "vision_config": {key: value for key, value in SIGLIP.items() if key != "model_type"} | {"patch_size": 2},
    "text_config": {"model_type": "llama", **TEXT},
    "image_token_id": IMAGE,
    "scale_factor": 2,
    "pad_token_id": PAD,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llava": {"vision_config": CLIP, "text_config": {"model_type": "llama", **TEXT}, "image_token_index": IMAGE},
    "llava_next": {
        "vision_config": CLIP,
        "text_config": {"model_type": "llama", **TEXT},
        "image_token_index": IMAGE,
        "image_grid_pinpoints": PINPOINTS,
    },
    "llava_onevision": {
        "vision_config": SIGLIP,
        "text_config": {"model_type": "qwen2", **TEXT},
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "image_grid_pinpoints": PINPOINTS,
        "vision_feature_select_strategy": "full",
    },
    "qwen2_vl": {"vision_config": QWEN_VISION, "text_config": QWEN_TEXT, **IMAGES},
    "qwen2_5_vl": {
        "vision_config": QWEN_VISION | {"fullatt_block_indexes": [1], "window_size": 16},
        "text_config": QWEN_TEXT,
        **IMAGES,
    },
    "qwen3_vl": {
        "vision_config": QWEN_VISION | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16},
        "text_config": QWEN_TEXT,
        **IMAGES,
    },
    "internvl": {
        "vision_config": {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [24, 24],
            "patch_size": [2, 2],
        },
        "text_config": {"model_type": "qwen2", **TEXT},
        "image_token_id": IMAGE,
        "downsample_ratio": 0.5,
    },
    "gemma3": {
        "vision_config": SIGLIP,
        "text_config": {**TEXT, "sliding_window": 128, "query_pre_attn_scalar": 8},
        "mm_tokens_per_image": 36,
        "image_token_index": IMAGE,
        "boi_token_index": START,
        "eoi_token_index": END,
    },
    "paligemma": {
        "vision_config": SIGLIP | {"projection_dim": 32, "vision_use_head": False},
        "text_config": {"model_type": "gemma", **TEXT},
        "image_token_index": IMAGE,
        "projection_dim": 32,
    },
    "idefics3": IDEFICS,
    "smolvlm": IDEFICS,
    "gemma4": {
        "vision_config": {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
            "default_output_length": 36,
        },
        "text_config": {
            **TEXT,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            "sliding_window": 128,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 100,
            "num_kv_shared_layers": 2,
            "global_head_dim": 8,
        },
        "audio_config": None,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "boi_token_id": START,
        "eoi_token_id": END,
        "audio_token_id": 95,
    },
    "qwen3_5": {
        "vision_config": QWEN_VISION | {"num_position_embeddings": 16},
        "text_config": LINEAR_TEXT,
        **IMAGES,
    },
    "qwen3_5_moe": {
        "vision_config": QWEN_VISION | {"num_position_embeddings": 16},
        "text_config": LINEAR_TEXT | EXPERTS,
        **IMAGES,
    },
}
"""The arguments of a tiny config of each family."""


SPREAD = 6.0
"""What the first weights of transformers are multiplied by, which have a standard deviation of 0.02."""


def tiny_model(name: str, *, ours: bool = False, reduction: Any = None, seed: int = 0, **text: Any) -> Any:
    """Make a tiny model in eval mode. With the same seed it has the same weights. `text` changes its text config."""
    torch.manual_seed(seed)
    row = DECODERS[name]
    model_class = row.model_class if ours else row.stock_class
    fields = deepcopy(CONFIGS[name])
    fields["text_config"] |= text
    config = model_class.config_class(**fields)
    if ours:
        config.schedule = config.checked(reduction)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large enough for what a token attends to to change the logits
                parameter.mul_(SPREAD)
                if not parameter.any():  # the projection of Gemma-3 begins with zeros
                    parameter.normal_(std=0.1)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None  # every answer has all its tokens
    return model


Prompt = Sequence["int | tuple[int, int]"]
"""Words, and images as (height, width) in image tokens. Families with images of one size have 36 tokens for each."""
SIZED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "qwen3_5_moe", "gemma4")
"""Families in which the number of image tokens depends on the size of the image."""
TYPED = (*SIZED, "gemma3")
ONE, TWO = (6, 6), (4, 6)


def pixels(name: str, sizes: Sequence[tuple[int, int]], per_row: Sequence[int]) -> dict[str, Tensor]:
    """Return the inputs of the image encoder of a family, the same for the same sizes.

    Args:
        name: the family.
        sizes: the images of all prompts.
        per_row: how many images each prompt has.
    """
    images = []
    for height, width in sizes:
        generator = torch.Generator().manual_seed(10 * height + width)
        shape = (height, width) if name in SIZED else ONE
        images.append(torch.rand((3, 4 * shape[0], 4 * shape[1]), generator=generator))
    if name.startswith("qwen"):
        grids = torch.tensor([[1, 2 * height, 2 * width] for height, width in sizes])
        patches = [
            torch.rand(4 * height * width, 96, generator=torch.Generator().manual_seed(10 * height + width))
            for height, width in sizes
        ]
        return {"pixel_values": torch.cat(patches), "image_grid_thw": grids}
    if name == "gemma4":
        return gemma4_pixels(sizes)
    stacked = torch.stack(images)
    if name in ("llava_next", "llava_onevision"):
        return {
            "pixel_values": stacked.unsqueeze(1).repeat(1, 3, 1, 1, 1),
            "image_sizes": torch.tensor([[24, 40]] * len(sizes)),
        }
    if name in ("idefics3", "smolvlm"):
        padded = torch.zeros(len(per_row), max(*per_row, 1), 3, 24, 24)
        start = 0
        for row, number in enumerate(per_row):
            padded[row, :number] = stacked[start : start + number]
            start += number
        return {"pixel_values": padded}
    return {"pixel_values": stacked}


def gemma4_pixels(sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Return the patches of images for Gemma-4, padded to 36 image tokens, and their places."""
    values, places = torch.zeros(len(sizes), 144, 48), torch.full((len(sizes), 144, 2), -1)
    for index, (height, width) in enumerate(sizes):
        number = 4 * height * width
        generator = torch.Generator().manual_seed(10 * height + width)
        values[index, :number] = torch.rand(number, 48, generator=generator)
        rows, columns = torch.meshgrid(torch.arange(2 * height), torch.arange(2 * width), indexing="ij")
        places[index, :number] = torch.stack([columns.flatten(), rows.flatten()], dim=1)
    return {"pixel_values": values, "image_position_ids": places}


def tiny_inputs(model: Any, name: str, prompts: Sequence[Prompt], pad_left: bool = True) -> dict[str, Tensor]:
    """Return the inputs of a batch of prompts, as the processor of the family makes them."""
    sizes = [item for prompt in prompts for item in prompt if isinstance(item, tuple)]
    per_row = [sum(isinstance(item, tuple) for item in prompt) for prompt in prompts]
    inputs = pixels(name, sizes, per_row) if sizes else {}
    counts = iter(image_lengths(model, name, sizes))
    rows: list[list[int]] = []
    for prompt in prompts:
        row: list[int] = []
        for item in prompt:
            if isinstance(item, int):
                row.append(item)
            elif name == "paligemma":
                row += [IMAGE] * next(counts)
            else:
                row += [START, *[IMAGE] * next(counts), END]
        rows.append(row)
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), PAD)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), None) if pad_left else slice(len(row))
        ids[index, place], mask[index, place] = torch.tensor(row), 1
    inputs |= {"input_ids": ids, "attention_mask": mask}
    if name in TYPED:
        types = "token_type_ids" if name == "gemma3" else "mm_token_type_ids"
        inputs[types] = (ids == IMAGE).long()
    if name == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return inputs


def image_lengths(model: Any, name: str, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return how many tokens each image has."""
    if name in SIZED:
        return [height * width for height, width in sizes]
    if name in ("llava_next", "llava_onevision"):
        inputs = pixels(name, sizes, [len(sizes)]) if sizes else {}
        return (
            [len(item) for item in model.base_model.get_image_features(**inputs, return_dict=True).pooler_output]
            if sizes
            else []
        )
    return [36] * len(sizes)
