"""Counts the FLOPs of a decoder model under any schedule. The model itself runs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from transformers import PreTrainedModel

from ...reducers import Schedule, TokenReducer, build_reducer
from ...reducers.base import SITES
from ...reducers.several import joined
from ..budget import ForwardCounter
from ..scorers import without_weights
from .family import DecoderFamily
from .random_inputs import prompts

TEXT_TOKENS = 32
"""Tokens of the reference prompt beside those of its image."""
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

    def reducers(self, schedule: Schedule) -> dict[str, TokenReducer]:
        found = {}
        width = self.model.config.get_text_config().hidden_size
        for site in SITES:
            parts = [without_weights(part) for part in schedule.parts if part.site == site]
            reducer = joined([build_reducer(part, width, in_decoder=True) for part in parts])
            if reducer is not None:
                found[site] = reducer.to(device=self.model.device, dtype=self.model.dtype).eval()
        return found

    def run(self, reducers: Mapping[str, TokenReducer]) -> None:
        inputs = dict(self.inputs)
        if any(reducer.uses_prior for reducer in reducers.values()):
            inputs["image_saliency"] = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
        training = self.model.training
        try:
            with self.using(reducers):
                self.model.eval()(**inputs, logits_to_keep=1)
        finally:
            self.model.train(training)
