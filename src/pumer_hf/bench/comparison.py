"""`pumer-hf bench` measures a model that reduces tokens against itself unreduced and against stock transformers."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..encoding import QUESTION_LENGTH
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import SAVED, load_checkpoint_model, unreduced_error
from ..reducers import METHODS
from ..results import Cost, Environment, check_results_file, text_table
from ..tokens import NUM_PREFIX_TOKENS
from .contenders import BenchOptions, Contender, checked_text_length, contender, stock_contender
from .full_size import paper_model
from .measure import measure, measure_break_even, measure_rows
from .report import REDUCED, STOCK, UNREDUCED, BenchReport, Conditions, mass_lines


def bench_checkpoint(
    source: str,
    options: BenchOptions,
    *,
    reduction: Any = SAVED,
    text_length: int | None = None,
    output: str | Path | None = None,
) -> list[str]:
    """Measure a checkpoint with and without reduction, interleaved in one run ([`measure`]).

    The inputs are random, since the cost of a forward depends on their shape alone. The texts have no padding.

    Args:
        source: a folder, or an id on the Hub.
        options: how to measure.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        text_length: tokens per text; default: as in the training of the model.
        output: a JSON file for the results.

    Returns:
        Lines to print: a table and notes.

    Raises:
        ValueError: the model reduces nothing, or a value is out of range.
        FileNotFoundError: there is no folder for `output`.
    """
    check_results_file(output)
    model = load_checkpoint_model(source, reduction)
    if model.reduction is None:
        raise unreduced_error(model, source)
    return bench_model(model, {"checkpoint": source}, options, text_length, output)


def bench_setting(
    setting: str,
    options: BenchOptions,
    *,
    reduction: Any = SAVED,
    text_length: int | None = None,
    output: str | Path | None = None,
) -> list[str]:
    """Measure a full-size model of the paper with random weights, in the way of [`bench_checkpoint`].

    Args:
        setting: backbone and task, such as `"vilt/vqa"`.
        options: how to measure.
        reduction: another schedule than the paper's for this task.
        text_length: tokens per text; default: that of the paper's FLOPs.
        output: a JSON file for the results.
    """
    check_results_file(output)
    backbone, _, task = setting.partition("/")
    model = paper_model(backbone, task, **({} if reduction is SAVED else {"reduction": reduction}))
    if model.reduction is None:
        raise unreduced_error(model, setting)
    text_length = QUESTION_LENGTH if text_length is None else text_length
    return bench_model(model, {"setting": setting}, options, text_length, output)


def bench_model(
    model: PuMerPreTrainedModel,
    source: dict[str, str],
    options: BenchOptions,
    text_length: int | None,
    output: str | Path | None,
) -> list[str]:
    """Measure a model that reduces tokens. `source` says in the results which model it is."""
    text_length = checked_text_length(model, text_length)
    contenders = contenders_of(model, text_length, options)
    cost = measure(contenders, options)
    report = BenchReport(
        source=source,
        reduction=model.config.reduction,
        text_length=text_length,
        conditions=Conditions.of(contenders, options),
        cost=cost,
        environment=Environment.current(),
        mean_image_tokens=mean_image_tokens(contenders[REDUCED], cost),
        break_even=measure_break_even(contenders, options, cost),
    )
    return [text_table(measure_rows(report.cost)), *notes(report), report.finish(output)]


@torch.inference_mode()
def mean_image_tokens(reduced: Contender, cost: Cost) -> float | None:
    """Return how many image tokens an image of the measured batch keeps on average; None if it is a fixed number."""
    if not any(part.varies for part in reduced.eager.token_reduction.part_configs):
        return None
    assert cost.throughput is not None, "`measure` always gives it"
    traces = reduced.eager(**reduced.inputs(cost.throughput.batch_size)).reduction
    lengths = [trace.image_lengths for trace in traces if trace.image_lengths is not None]
    return torch.cat(lengths).float().mean().item() - NUM_PREFIX_TOKENS


def contenders_of(model: PuMerPreTrainedModel, text_length: int, options: BenchOptions) -> dict[str, Contender]:
    """Return the models to compare: the unreduced one, that of transformers if there is one, and the reduced one."""
    unreduced = copy.deepcopy(model)
    unreduced.set_reduction(None)
    stock = stock_contender(unreduced, text_length, options)
    return {
        UNREDUCED: contender(unreduced, text_length, options),
        **({} if stock is None else {STOCK: stock}),
        REDUCED: contender(model, text_length, options),
    }


def learns_apart(report: BenchReport) -> bool:
    """Return whether a method of the measured schedule has a scorer, which is trained beside the model."""
    parts = report.reduction if isinstance(report.reduction, list) else [report.reduction or {}]
    return any(METHODS[part["method"]].learns_apart for part in parts if part.get("method") in METHODS)


def notes(report: BenchReport) -> Sequence[str]:
    """Return the lines below the table: how it was measured, and whether reduction pays."""
    conditions, throughput = report.conditions, report.throughput
    dtype = conditions.dtype[report.reduced]
    lines = [
        f"Speed: {throughput.note} on {conditions.device}; {dtype}, matrix products of {conditions.matmul_precision} "
        "precision"
        + (", compiled" if conditions.compiled else "")
        + (f", pooled_only: {', '.join(conditions.pooled_only)}." if conditions.pooled_only else ".")
    ]
    if report.gain_over_stock is not None:
        gain, stock = report.gain_over_stock, conditions.dtype[STOCK]
        lines.append(f"Reduced, it is {gain:.2f} times as fast as stock transformers ({stock}).")
    if "setting" in report.source and learns_apart(report):
        lines.append("The weights are random, those of the scorer too: it costs as much as a trained one.")
    lines += mass_lines(report.mean_image_tokens)
    if report.cost.memory is not None:
        lines.append("Memory: peak of the activations; weights, gradients and inputs do not count.")
    slow = [f"batch {throughput.batch_size}"] if throughput.gain < 1 else []
    latency = report.cost.latency
    slow += ["batch 1"] if latency is not None and latency.models[report.reduced].ratio < 1 else []
    if slow:
        where = " and ".join(slow)
        lines.append(f"Reduction does not pay at {where}: the batch is too small, or there are too few tokens.")
    if report.break_even is not None:
        lines += report.break_even.lines("image patches")
    return lines
