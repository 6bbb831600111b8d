"""Tiny models from config, one entry per family, for the tests that every family must pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tiny import meter_fields, vilt_fields
from torch import Tensor
from transformers import PreTrainedModel

from pumer_hf.models.encoders import meter, vilt
from pumer_hf.models.encoders.meter import PuMerMeterConfig
from pumer_hf.models.encoders.vilt import PuMerViltConfig
from pumer_hf.reducers import ReductionConfig, parse_method, parse_reduction
from pumer_hf.tokens import TokenPair, Tokens

NUM_LABELS = 5
VOCAB_SIZE = 40
NUM_TEXT = 9
REAL_TEXT = (9, 5, 3)
"""Real text tokens of the three examples in `inputs`."""
SQUARE = {"image_size": 16, "patch_size": 4}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SHARED: dict[str, Any] = {
    "num_hidden_layers": 4,
    "num_labels": NUM_LABELS,
    "initializer_range": 0.4,  # large enough for attention to differ from token to token
    **DROPOUT,
}


def vilt_config(**overrides: Any) -> PuMerViltConfig:
    values = {**SHARED, "vocab_size": VOCAB_SIZE, "max_position_embeddings": 12, **SQUARE, **overrides}
    return PuMerViltConfig(**vilt_fields(**values))


def vilt_inputs(seed: int = 0) -> dict[str, Tensor]:
    """Three examples; texts of 9, 5 and 3 tokens, images of 4 x 4, 3 x 4 and 2 x 2 patches."""
    generator = torch.Generator().manual_seed(seed)
    pixel_mask = torch.zeros(3, 16, 16, dtype=torch.long)
    for index, (height, width) in enumerate([(16, 16), (12, 16), (8, 8)]):
        pixel_mask[index, :height, :width] = 1
    pixel_values = torch.randn(3, 3, 16, 16, generator=generator) * pixel_mask.unsqueeze(1)
    return {**text_inputs(generator), "pixel_values": pixel_values, "pixel_mask": pixel_mask}


def meter_config(**overrides: Any) -> PuMerMeterConfig:
    values = {**SHARED, **overrides}
    spread = {"num_hidden_layers": 2, "initializer_range": values["initializer_range"]}
    text = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 24,
        "num_attention_heads": 3,
        "max_position_embeddings": 13,
        "pad_token_id": 0,
        **DROPOUT,
        **spread,
    }
    vision = {"hidden_size": 20, "initializer_factor": 2.0, **SQUARE, **spread}
    return PuMerMeterConfig(**meter_fields(text, vision, **values))


def meter_inputs(seed: int = 0) -> dict[str, Tensor]:
    """Three examples; texts of 9, 5 and 3 tokens, images of 4 x 4 patches."""
    generator = torch.Generator().manual_seed(seed)
    return {**text_inputs(generator), "pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}


def text_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    attention_mask = (torch.arange(NUM_TEXT) < torch.tensor(REAL_TEXT).unsqueeze(1)).long()
    input_ids = torch.randint(1, VOCAB_SIZE, (len(REAL_TEXT), NUM_TEXT), generator=generator) * attention_mask
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@dataclass(frozen=True)
class Family:
    config: Callable[..., Any]
    model_class: type[PreTrainedModel]
    inputs: Callable[..., dict[str, Tensor]]
    num_image: int
    """Image tokens, [CLS] included, that come into the first reducible layer."""
    base_class: type[PreTrainedModel]
    entailment_class: type[PreTrainedModel]
    retrieval_class: type[PreTrainedModel]
    images_class: type[PreTrainedModel]

    def model(self, reduction: dict[str, Any] | None = None, seed: int = 0, **overrides: Any) -> Any:
        torch.manual_seed(seed)
        return self.model_class(self.config(reduction=reduction, **overrides)).eval()


FAMILIES = {
    "vilt": Family(
        vilt_config,
        vilt.PuMerViltForQuestionAnswering,
        vilt_inputs,
        num_image=17,
        base_class=vilt.PuMerViltModel,
        entailment_class=vilt.PuMerViltForVisualEntailment,
        retrieval_class=vilt.PuMerViltForImageAndTextRetrieval,
        images_class=vilt.PuMerViltForImagesAndTextClassification,
    ),
    "meter": Family(
        meter_config,
        meter.PuMerMeterForQuestionAnswering,
        meter_inputs,
        num_image=17,
        base_class=meter.PuMerMeterModel,
        entailment_class=meter.PuMerMeterForVisualEntailment,
        retrieval_class=meter.PuMerMeterForImageAndTextRetrieval,
        images_class=meter.PuMerMeterForImagesAndTextClassification,
    ),
}

AT_INPUTS: dict[str, Any] = {"site": "inputs"}
PREDICTION: dict[str, Any] = {"method": "lookahead", "keep_ratio": 1.0, "rank": 8, **AT_INPUTS}
"""The part that only predicts, for the methods that read a prediction."""

# One entry per method: a small and an extreme schedule for models of four layers. A method without one fails a test.
SCHEDULES: dict[str, dict[str, dict[str, Any]]] = {
    "pumer": {
        "small": {"layers": [1], "prune_ratio": 0.1, "image_merge_ratio": 0.2, "text_merge_ratio": 0.2},
        "extreme": {
            "layers": [0, 1, 2, 3],
            "prune_ratio": [0.6, 0.3, 0.9, 0.99],
            "image_merge_ratio": 0.99,
            "text_merge_ratio": [0.99, 0.0, 0.5, 0.99],
        },
        "predicted": {
            "layers": [0, 2],
            "prune_ratio": 0.3,
            "image_merge_ratio": 0.2,
            "text_merge_ratio": 0.2,
            "saliency": ["lookahead", "mean_head"],
        },
        "inputs": {"keep_ratio": 0.4, **AT_INPUTS},
    },
    "tip": {
        "small": {"layers": [1], "prune_ratio": 0.3},
        "extreme": {"layers": [0, 1, 2, 3], "prune_ratio": [0.6, 0.3, 0.9, 0.99]},
        "attention": {"layers": [1, 3], "prune_ratio": 0.5, "pruner": "mean_head"},
        "first": {"layers": [1, 3], "prune_ratio": 0.5, "pruner": "first_head", "continuity_weight": 0.0},
        "linear": {"layers": [1, 3], "prune_ratio": 0.5, "pruner": "linear", "contrastive_weight": 0.0},
        "inputs": {"keep_ratio": 0.4, "rank": 8, **AT_INPUTS},
        "inputs_diverse": {"keep_ratio": 0.3, "rank": 8, "form": "block", "diversity": "max_min", **AT_INPUTS},
    },
    "tome": {
        "small": {"layers": [1], "merge_ratio": 0.2},
        "extreme": {"layers": [0, 1, 2, 3], "merge_ratio": [0.3, 0.99, 0.5, 0.99]},
        "inputs": {"merge_ratio": 0.7, **AT_INPUTS},
    },
    "dynamicvit": {
        "small": {"layers": [1], "prune_ratio": 0.3},
        "extreme": {"layers": [0, 1, 2, 3], "prune_ratio": [0.6, 0.3, 0.9, 0.99]},
    },
    "fastv": {
        "small": {"layers": [1], "prune_ratio": 0.3},
        "extreme": {"layers": [0], "prune_ratio": 0.99},
    },
    "pyramid": {
        "small": {"layers": [1], "prune_ratio": 0.3},
        "extreme": {"layers": [0, 1, 2, 3], "prune_ratio": [0.6, 0.3, 0.9, 0.99]},
    },
    "random": {
        "small": {"layers": [1], "prune_ratio": 0.3},
        "extreme": {"layers": [0, 1, 2, 3], "prune_ratio": [0.6, 0.3, 0.9, 0.99]},
        "inputs": {"prune_ratio": 0.5, **AT_INPUTS},
    },
    "grounded": {
        "small": {"layers": [1], "prune_ratio": 0.3},
        "extreme": {"layers": [0, 1, 2, 3], "prune_ratio": [0.6, 0.3, 0.9, 0.99]},
        "inputs": {"prune_ratio": 0.5, **AT_INPUTS},
    },
    "grid": {
        "small": {"keep_ratio": 0.7, **AT_INPUTS},
        "extreme": {"num_keep": 1, **AT_INPUTS},
    },
    "diverse": {
        "small": {"keep_ratio": 0.7, **AT_INPUTS},
        "extreme": {"num_keep": 1, **AT_INPUTS},
        "max_min": {"keep_ratio": 0.4, "diversity": "max_min", **AT_INPUTS},
    },
    "relevant_diverse": {
        "small": {"keep_ratio": 0.7, **AT_INPUTS},
        "extreme": {"num_keep": 1, **AT_INPUTS},
        "dpp": {"keep_ratio": 0.4, "diversity": "dpp", "p": 0.25, "merge_rest": True, **AT_INPUTS},
    },
    "lookahead": {
        "small": {"keep_ratio": 0.7, "rank": 8, **AT_INPUTS},
        "extreme": {"num_keep": 1, "rank": 8, **AT_INPUTS},
        "bag": {"keep_ratio": 0.4, "form": "bag", "rank": 8, "diversity": "max_min", "p": 0.5, **AT_INPUTS},
        "words": {"keep_ratio": 0.4, "form": "words", "rank": 8, "diversity": None, **AT_INPUTS},
        "block": {"keep_ratio": 0.4, "form": "block", "rank": 8, "merge_rest": True, **AT_INPUTS},
    },
}


def schedule(method: str, size: str) -> Any:
    """A schedule with all its fields, as a config holds it; a list if the method needs the prediction of another."""
    part = parse_method({"method": method, **SCHEDULES[method][size]})
    return parse_reduction([PREDICTION, part] if part.needs_prediction else part).to_dict()


def parts_of(reduction: Any) -> list[ReductionConfig]:
    """The parts of a schedule in the order of their sites; none for the unreduced model."""
    parsed = parse_reduction(reduction)
    return [] if parsed is None else list(parsed.parts)


def places_of(reduction: Any) -> list[tuple[str, int]]:
    """Where a schedule reduces: the site and the index of each layer, in order."""
    return [(part.site, layer) for part in parts_of(reduction) for layer in part.layers or (0,)]


def depth_of(reduction: Any) -> int:
    """How many layers a model needs: those that reduce, and one behind them if there is; two at least."""
    needed = max([2, *(layer + 2 for site, layer in places_of(reduction) if site == "layers")])
    return min(needed, SHARED["num_hidden_layers"])


REDUCTIONS: dict[str, Any] = {
    "none": None,
    **{f"{method}-{size}": schedule(method, size) for method in SCHEDULES for size in SCHEDULES[method]},
}
"""All schedules by name."""


def inputs_of(family):
    """Inputs with all that some method asks for."""
    saliency = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(7))
    return {**family.inputs(), "image_saliency": saliency}


def loss_of(model, inputs):
    """The loss on drawn labels, with what a method adds to it; the same at every call."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.rand(len(inputs["input_ids"]), NUM_LABELS, generator=generator)
    torch.manual_seed(6)  # for methods that draw
    outputs = model(**inputs, labels=labels)
    return outputs.loss + sum(loss for trace in outputs.reduction for loss in trace.losses.values())


def gradients(model, inputs):
    """Of [`loss_of`], by name of the parameter, where there is one."""
    model.zero_grad()
    loss_of(model, inputs).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def token_pair(width):
    """Three text tokens, and a [CLS] with four patches; in the second example the last ones are padding."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length, num_padding, grid=None):
        mask = torch.ones(2, length, dtype=torch.bool)
        mask[1, length - num_padding :] = False
        return Tokens.initial(torch.randn(2, length, width, generator=generator), mask, grid=grid)

    return TokenPair(tokens(3, 1), tokens(5, 2, (2, 2)))
