"""Pictures and words that show what a reduction did. They are made from the traces in `outputs.reduction`."""

from .maps import merged_words, patch_index, real_patches, token_map
from .pictures import draw_layers, draw_token_map, draw_traces, seen_picture

__all__ = [
    "draw_layers",
    "draw_token_map",
    "draw_traces",
    "merged_words",
    "patch_index",
    "real_patches",
    "seen_picture",
    "token_map",
]
