"""Counts the FLOPs of an encoder under any schedule, on a copy that has shapes and no weights."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedModel

from ...reducers import ReductionConfig, TokenReducer
from ...tokens import NUM_PREFIX_TOKENS
from ..budget import ForwardCounter

TEXT_TOKENS = 40
"""Tokens of the reference text, if the model takes so many: those of the paper's FLOPs."""


class EncoderCounter(ForwardCounter):
    """Counts the FLOPs of a backbone, without its head.

    Args:
        backbone: the model. It does not run.
    """

    def __init__(self, backbone: PreTrainedModel):
        config: Any = deepcopy(backbone.config)
        config.schedule, config.pooled_only = None, backbone.config.pooled_only
        with torch.device("meta"):
            self.twin: Any = type(backbone)(config).eval()
        side = config.image_size
        height, width = (side, side) if isinstance(side, int) else side
        text_tokens = min(TEXT_TOKENS, config.max_text_length)
        self.inputs = {
            "input_ids": torch.zeros(1, text_tokens, dtype=torch.long, device="meta"),
            "pixel_values": torch.zeros(1, 3, height, width, device="meta"),
            "image_saliency": torch.zeros(1, height, width, device="meta"),
        }
        super().__init__(config.sites, text_tokens, NUM_PREFIX_TOKENS + config.num_patches)

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        with torch.device("meta"):
            return self.twin.make_reducer(part)

    def run(self, reducers: Mapping[str, TokenReducer]) -> None:
        with self.twin.token_reduction.using(reducers):
            inputs = dict(self.inputs)
            if not self.twin.token_reduction.uses_prior:
                del inputs["image_saliency"]
            self.twin(**inputs)
