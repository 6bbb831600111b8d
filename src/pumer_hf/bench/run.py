"""`pumer-hf bench`: a checkpoint as it reduces, against itself unreduced."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models.base import PuMerPreTrainedModel
from ..models.heads import num_images
from ..models.loading import SAVED, UNREDUCED, load_checkpoint_model
from .cost import cost_report, cost_rows, format_table, speed_note


def bench_checkpoint(
    source: str,
    *,
    reduction: Any = SAVED,
    batch_size: int = 8,
    text_length: int | None = None,
    seconds: float = 10.0,
    output: str | Path | None = None,
) -> list[str]:
    """Measure the forward pass of a checkpoint with and without reduction, interleaved in one run.

    The inputs are random: what a forward costs depends on their shape alone. The texts have no padding.

    Args:
        source: a folder, or an id on the Hub.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        batch_size: examples per forward.
        text_length: tokens per text; default: as many as the model takes, at most 40, the length of the paper's tasks.
        seconds: how long to measure.
        output: a JSON file for the results.

    Returns:
        Lines to print: a table, and the results as one line of JSON.

    Raises:
        ValueError: the model reduces nothing, or a value is out of range.
        FileNotFoundError: there is no folder for `output`.
    """
    if output is not None and not Path(output).parent.is_dir():
        raise FileNotFoundError(f"-o {output}: there is no folder {Path(output).parent}")
    reduced = load_checkpoint_model(source, reduction)
    if reduced.reduction is None:
        raise ValueError(f"{source!r}: {UNREDUCED}")
    longest = reduced.config.max_text_length
    text_length = min(40, longest) if text_length is None else text_length
    for name, value, bound in (("batch_size", batch_size, None), ("text_length", text_length, longest)):
        if value < 1 or (bound is not None and value > bound):
            raise ValueError(f"{name}={value}: must be at least 1" + (f" and at most {bound}" if bound else ""))
    models = {"unreduced": load_checkpoint_model(source, None), "reduced": reduced}
    report = cost_report(models, random_inputs(reduced, batch_size, text_length), seconds)
    report = {"checkpoint": source, "reduction": reduced.config.reduction, "text_length": text_length, **report}
    if output is not None:
        Path(output).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = format_table([["", *models, ""], *cost_rows(report, list(models))])
    notes = [speed_note(report)]
    if report["throughput"]["ratio"] < 1:
        notes.append("Reduction does not pay here: the batch is too small, or there are too few tokens.")
    return [table, *notes, json.dumps(report)]


def random_inputs(model: PuMerPreTrainedModel, batch_size: int, text_length: int) -> dict[str, Tensor]:
    """Inputs of the model, on its device: `input_ids` and `attention_mask` long (B, Lt), `pixel_values` float
    (B, 3, h, w), or (B, 2, 3, h, w) for NLVR2; and `image_saliency` for a method that needs it.
    """
    generator = torch.Generator().manual_seed(0)
    images = (batch_size,) if num_images(model) == 1 else (batch_size, num_images(model))
    ids = torch.randint(model.get_input_embeddings().num_embeddings, (batch_size, text_length), generator=generator)
    side = model.config.image_size
    pixels = torch.rand(*images, 3, side, side, generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    if model.reduction is not None and model.base_model.reducer.uses_prior:
        inputs["image_saliency"] = torch.rand(*images, side, side, generator=generator)
    return {name: value.to(model.device) for name, value in inputs.items()}
