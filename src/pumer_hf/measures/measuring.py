"""How well a reduction explains an answer, measured: alignment, sufficiency and comprehensiveness in one report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..bench.cost import format_table
from ..configuration import PuMerConfig
from ..explain.maps import real_patches
from ..explain.pictures import check_reduces
from ..explain.prediction import run
from ..metrics.vqa import example_scores
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import num_images
from ..reducers import TokenReducer
from ..tokens import LayerTrace
from .alignment import Alignment, alignment
from .faithfulness import compared_reducers, faithfulness, own_reducer, reduced_by


class MeasuredBatch(NamedTuple):
    """Examples to measure a model on."""

    inputs: dict[str, Tensor]
    """Keyword arguments of the model, without labels."""
    regions: Tensor
    """bool (B, A, rows, columns): the patches that each text is about, as each of A annotators sees it. Empty where
    the text is about nothing in the image."""
    labels: Tensor | None = None
    """Soft targets float (B, num_labels), or classes long (B,); None where accuracy cannot be measured."""


def measure_explanations(
    model: PuMerPreTrainedModel, batches: Iterable[MeasuredBatch], seed: int = 0
) -> dict[str, Any]:
    """Alignment, sufficiency and comprehensiveness of a model's reduction (TiP, Section 5.2).

    The model is run in eval mode and left as it was.

    Args:
        model: of any family, with a head of one image and one text, and a reduction.
        batches: either all with labels or all without; all with as many annotators.
        seed: of the random baselines.

    Returns:
        Plain JSON types, all measures in percent. `layers`: for each reduction layer `layer`, `precision`, `recall`,
        `random_precision`, `random_recall` ([`Alignment`], the mean over the examples and then the annotators) and
        `examples`, how many have a region. `examples`, `without_region` (left out of `layers`), `annotators`, `seed`.
        With labels also `accuracy` by reducer ([`compared_reducers`]) and the measures of [`faithfulness`].

    Raises:
        ValueError: the model reduces no tokens or takes several images, its method makes no choice to invert, or no
            example has a region.
    """
    check_reduces(model)
    if num_images(model) != 1:
        raise ValueError(f"{type(model).__name__} takes several images: measure a model of one image")
    aligned: dict[int, list[Tensor]] = {}
    scores: dict[str, list[np.ndarray]] = {}
    reducers: dict[str, TokenReducer | None] | None = None
    for batch in batches:
        if reducers is None:
            reducers = compared_reducers(model, seed) if batch.labels is not None else {"reduced": own_reducer(model)}
        if (batch.labels is None) != (len(reducers) == 1):
            raise ValueError("labels: give them with all batches, or with none")
        _measure(model, batch, reducers, aligned, scores)
    report = {**alignment_report(aligned), "seed": seed}
    if not scores:
        return report
    accuracy = {name: 100 * float(np.concatenate(values).mean(dtype=np.float64)) for name, values in scores.items()}
    return {**report, "accuracy": accuracy, **faithfulness(accuracy)}


def _measure(
    model: PuMerPreTrainedModel,
    batch: MeasuredBatch,
    reducers: Mapping[str, TokenReducer | None],
    aligned: dict[int, list[Tensor]],
    scores: dict[str, list[np.ndarray]],
) -> None:
    """Run a batch under each reducer, and add its alignment by layer and its scores by reducer."""
    inputs = {name: value.to(model.device) for name, value in batch.inputs.items()}
    for name, reducer in reducers.items():
        with reduced_by(model, reducer):
            outputs = run(model, inputs)
        if name == "reduced":
            real = real_of(model.config, inputs)
            for trace in model.token_reduction.traces(outputs):
                aligned.setdefault(trace.layer, []).append(_per_annotator(trace, batch.regions, real))
        if batch.labels is not None:
            logits = outputs.logits.float().cpu().numpy()
            scores.setdefault(name, []).append(example_scores(logits, batch.labels.cpu().numpy()))


def real_of(config: PuMerConfig, inputs: Mapping[str, Tensor]) -> Tensor:
    """Bool (B, rows, columns): [`real_patches`] of each image of a batch."""
    masks = inputs["pixel_mask"] if "pixel_mask" in inputs else [None] * len(inputs["pixel_values"])
    return torch.stack([real_patches(config, *image) for image in zip(inputs["pixel_values"], masks, strict=True)])


def _per_annotator(trace: LayerTrace, regions: Tensor, real: Tensor) -> Tensor:
    """The four values of [`Alignment`], float64 (4, B, A)."""
    per_annotator = [torch.stack(alignment(trace, region, real)) for region in regions.unbind(dim=1)]
    return torch.stack(per_annotator, dim=2)


def alignment_report(aligned: Mapping[int, Sequence[Tensor]]) -> dict[str, Any]:
    """The part of [`measure_explanations`] about alignment.

    Args:
        aligned: for each layer the values of [`Alignment`] of each batch, float64 (4, B, A), NaN without a region.
    """
    values = {layer: torch.cat(list(batches), dim=1) for layer, batches in aligned.items()}
    if not values:
        raise ValueError("batches: there is no example to measure")
    layers = [{"layer": layer, **layer_report(of_layer)} for layer, of_layer in values.items()]
    _, examples, annotators = next(iter(values.values())).shape
    counts = {"examples": examples, "without_region": examples - layers[0]["examples"], "annotators": annotators}
    return {"layers": layers, **counts}


def layer_report(values: Tensor) -> dict[str, Any]:
    """Means of the values of [`Alignment`], float64 (4, N, A), in percent; and how many examples have a region."""
    has_region = ~values[0].isnan()
    examples = int(has_region.any(dim=1).sum())
    if not examples:
        raise ValueError(
            f"regions: all are empty, those of {values.shape[1]} examples: there is nothing to align with"
        )
    means = values.nanmean(dim=1)[:, has_region.any(dim=0)].mean(dim=1)
    return {**dict(zip(Alignment._fields, (100 * means).tolist(), strict=True)), "examples": examples}


def measures_table(report: Mapping[str, Any]) -> str:
    """The report for a reader: a line per layer, then how faithful the answers are, and what the words mean."""
    rows = [["patches held, of those asked about", "precision", "(random)", "recall", "(random)"]]
    for layer in report["layers"]:
        names = ("precision", "random_precision", "recall", "random_recall")
        rows.append([f"after layer {layer['layer']}", *(f"{layer[name]:.1f} %" for name in names)])
    lines = [format_table(rows), regions_note(report)]
    if "accuracy" in report:
        rows = [["accuracy lost", "points", "(random)"]]
        for name, meaning in (
            ("sufficiency", "with what is kept alone; low is good"),
            ("comprehensiveness", "with what is pruned alone; high is good"),
        ):
            values = (f"{report[key]:.2f}" for key in (name, f"random_{name}"))
            rows.append([f"{name}: {meaning}", *values])
        accuracy = report["accuracy"]
        note = f"Accuracy: {accuracy['unreduced']:.2f} % unreduced, {accuracy['reduced']:.2f} % reduced."
        lines += [format_table(rows), note]
    return "\n".join(lines)


def regions_note(report: Mapping[str, Any]) -> str:
    """What the alignment was measured on."""
    asking = report["examples"] - report["without_region"]
    by = f", mean of {report['annotators']} annotators" if report["annotators"] > 1 else ""
    return f"Measured on {asking} examples with a region{by}; {report['without_region']} without one are left out."
