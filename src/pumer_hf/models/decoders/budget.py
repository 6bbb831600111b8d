"""Counts the FLOPs of a decoder model under any schedule. The model itself runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from ...reducers import ReductionConfig, TokenReducer, build_reducer
from ..budget import ForwardCounter
from .family import DecoderFamily
from .prompt import input_device
from .random_inputs import prompts

TEXT_TOKENS = 32
"""Tokens of the reference prompt beside those of its image."""
ROPE, WATCH = "rope_deltas", "watch"
"""What a forward changes: the positions that M-RoPE models keep for the next token, and what hears of traces."""
Using = Callable[[Mapping[str, TokenReducer]], AbstractContextManager]
"""Makes a model reduce with some reducers inside a `with` block."""


class DecoderCounter(ForwardCounter):
    """Counts the FLOPs of a prefill: image tower and decoder, up to the logits of the next token.

    Args:
        model: a model of transformers' own class or of ours. It runs in eval mode.
        family: its family.
        using: what makes it reduce.
    """

    def __init__(self, model: PreTrainedModel, family: DecoderFamily, using: Using):
        self.model, self.using = model, using
        with using({}):
            self.inputs = prompts(model, 1, TEXT_TOKENS, family=family)
        image_tokens = int((self.inputs["input_ids"] == family.image_token_id(model.config)).sum())
        super().__init__(family.sites_of(model.config), TEXT_TOKENS, image_tokens)

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        reducer = build_reducer(part, self.model.config.get_text_config().hidden_size, in_decoder=True)
        return reducer.to(device=input_device(self.model), dtype=self.model.dtype)

    def run(self, reducers: Mapping[str, TokenReducer]) -> None:
        inputs = dict(self.inputs)
        if any(reducer.uses_prior for reducer in reducers.values()):
            inputs["image_saliency"] = torch.ones(1, 8, 8, device=input_device(self.model))
        with unchanged(self.model), self.using(reducers):
            self.model.eval()(**inputs, logits_to_keep=1)


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Bring a model back into its state after a `with` block in which it runs: modes, and what a forward leaves."""
    modes = {module: module.training for module in model.modules()}
    kept = {
        owner: vars(owner)[name] for owner, name in ((model.base_model, ROPE), (model, WATCH)) if name in vars(owner)
    }
    if WATCH in vars(model):
        model.watch = None
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for owner, value in kept.items():
            setattr(owner, WATCH if owner is model else ROPE, value)
