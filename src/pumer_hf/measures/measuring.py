"""Measures how well a reduction explains the answers of a model: alignment, sufficiency and comprehensiveness."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..configuration import PuMerConfig
from ..explain.maps import real_patches
from ..explain.pictures import check_reduces
from ..explain.prediction import run
from ..metrics.vqa import example_scores
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import num_images
from ..results import PERCENT
from ..tokens import LayerTrace
from .alignment import Alignment, alignment
from .faithfulness import StandIns, choosing_reducers, compared_reducers, faithfulness, reduced_by
from .report import Explanations, LayerAlignment

Place = tuple[str, int]
"""The site and the index of a layer."""


class MeasuredBatch(NamedTuple):
    """Examples to measure a model on."""

    inputs: dict[str, Tensor]
    """Keyword arguments of the model, without labels."""
    regions: Tensor
    """The patches that each text is about according to each of A annotators, bool (B, A, rows, columns). All are False
    if the text is about nothing in the image."""
    labels: Tensor | None = None
    """Soft targets float (B, num_labels), or classes long (B,); None if the accuracy cannot be measured."""


def measure_explanations(model: PuMerPreTrainedModel, batches: Iterable[MeasuredBatch], seed: int = 0) -> Explanations:
    """Measure the alignment, the sufficiency and the comprehensiveness of a model's reduction (TiP, Section 5.2).

    The model runs in eval mode. Afterwards it is as it was before.

    Args:
        model: a model of any family, with a head for one image and one text, and with a reduction.
        batches: all with labels, or all without. All have the same number of annotators.
        seed: the seed of the random baselines.

    Returns:
        The alignment of each layer that reduces ([`Alignment`]). With labels, also the accuracy by reducer
        ([`compared_reducers`]) and the measures of [`faithfulness`].

    Raises:
        ValueError: the model reduces no tokens or takes several images, its method does not choose which tokens to
            keep, or no example has a region.
    """
    check_reduces(model)
    if num_images(model) != 1:
        raise ValueError(f"{type(model).__name__} takes several images: measure a model of one image")
    aligned: dict[Place, list[Tensor]] = {}
    scores: dict[str, list[np.ndarray]] = {}
    reducers: dict[str, StandIns | None] | None = None
    choosing_reducers(model)
    for batch in batches:
        if reducers is None:
            reducers = compared_reducers(model, seed) if batch.labels is not None else {"reduced": {}}
        if (batch.labels is None) != (len(reducers) == 1):
            raise ValueError("labels: give them with all batches, or with none")
        _measure(model, batch, reducers, aligned, scores)
    without_accuracy = alignment_report(aligned, seed)
    if not scores:
        return without_accuracy
    means = {name: 100 * float(np.concatenate(values).mean(dtype=np.float64)) for name, values in scores.items()}
    accuracy = {name: PERCENT.of(mean) for name, mean in means.items()}
    return replace(without_accuracy, accuracy=accuracy, faithfulness=faithfulness(accuracy))


def _measure(
    model: PuMerPreTrainedModel,
    batch: MeasuredBatch,
    reducers: Mapping[str, StandIns | None],
    aligned: dict[Place, list[Tensor]],
    scores: dict[str, list[np.ndarray]],
) -> None:
    """Run a batch under each reducer, and add its alignment by layer and its scores by reducer."""
    inputs = {name: value.to(model.device) for name, value in batch.inputs.items()}
    for name, reducer in reducers.items():
        with reduced_by(model, reducer):
            outputs = run(model, inputs)
        if name == "reduced":
            real = real_of(model.config, inputs)
            for trace in outputs.reduction or ():
                if trace.site != "tower" or trace.keep is not None:  # a layer that only merges holds every patch
                    place = (trace.site, trace.layer)
                    aligned.setdefault(place, []).append(_per_annotator(trace, batch.regions, real))
        if batch.labels is not None:
            logits = outputs.logits.float().cpu().numpy()
            scores.setdefault(name, []).append(example_scores(logits, batch.labels.cpu().numpy()))


def real_of(config: PuMerConfig, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the [`real_patches`] of each image of a batch, bool (B, rows, columns)."""
    masks = inputs["pixel_mask"] if "pixel_mask" in inputs else [None] * len(inputs["pixel_values"])
    return torch.stack([real_patches(config, *image) for image in zip(inputs["pixel_values"], masks, strict=True)])


def _per_annotator(trace: LayerTrace, regions: Tensor, real: Tensor) -> Tensor:
    """Return the four values of [`Alignment`] for each annotator, float64 (4, B, A)."""
    per_annotator = [torch.stack(alignment(trace, region, real)) for region in regions.unbind(dim=1)]
    return torch.stack(per_annotator, dim=2)


def alignment_report(aligned: Mapping[Place, Sequence[Tensor]], seed: int = 0) -> Explanations:
    """Sum up the alignment of all batches, which is a part of [`measure_explanations`].

    Args:
        aligned: for each layer (site and index), the values of [`Alignment`] of each batch, float64 (4, B, A). They
            are NaN where an example has no region.
        seed: the argument of [`measure_explanations`].
    """
    values = {place: torch.cat(list(batches), dim=1) for place, batches in aligned.items()}
    if not values:
        raise ValueError("batches: there is no example to measure")
    layers = tuple(layer_alignment(place, of_layer) for place, of_layer in values.items())
    _, examples, annotators = next(iter(values.values())).shape
    return Explanations(layers, examples, examples - layers[0].examples, annotators, seed)


def layer_alignment(place: Place, values: Tensor) -> LayerAlignment:
    """Return the means of a layer's values of [`Alignment`], float64 (4, N, A)."""
    has_region = ~values[0].isnan()
    examples = int(has_region.any(dim=1).sum())
    if not examples:
        raise ValueError(
            f"regions: all are empty, those of {values.shape[1]} examples: there is nothing to align with"
        )
    means = values.nanmean(dim=1)[:, has_region.any(dim=0)].mean(dim=1)
    percents = dict(zip(Alignment._fields, (100 * means).tolist(), strict=True))
    site, layer = place
    return LayerAlignment(layer, **percents, examples=examples, site=site)
