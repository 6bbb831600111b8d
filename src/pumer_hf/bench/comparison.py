"""`pumer-hf bench`: a model as it reduces, against itself unreduced and against stock transformers."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..encoding import QUESTION_LENGTH
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import SAVED, load_checkpoint_model, unreduced_error
from .contenders import Contender, Settings, checked_text_length, contender, stock_contender
from .cost import format_table
from .full_size import paper_model
from .measure import measure, measure_rows
from .output import check_output, finish

UNREDUCED_NAME, STOCK_NAME, REDUCED_NAME = "unreduced", "stock", "reduced"


def bench_checkpoint(
    source: str,
    settings: Settings,
    *,
    reduction: Any = SAVED,
    text_length: int | None = None,
    output: str | Path | None = None,
) -> list[str]:
    """Measure a checkpoint with and without reduction, interleaved in one run; see [`measure`].

    The inputs are random: what a forward costs depends on their shape alone. The texts have no padding.

    Args:
        source: a folder, or an id on the Hub.
        settings: how to measure.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        text_length: tokens per text; default: as in the training of the model.
        output: a JSON file for the results.

    Returns:
        Lines to print: a table and notes.

    Raises:
        ValueError: the model reduces nothing, or a value is out of range.
        FileNotFoundError: there is no folder for `output`.
    """
    check_output(output)
    model = load_checkpoint_model(source, reduction)
    if model.reduction is None:
        raise unreduced_error(model, source)
    return bench_model(model, {"checkpoint": source}, settings, text_length, output)


def bench_setting(
    setting: str,
    settings: Settings,
    *,
    reduction: Any = SAVED,
    text_length: int | None = None,
    output: str | Path | None = None,
) -> list[str]:
    """Measure a full-size model of the paper with random weights, as [`bench_checkpoint`] does a checkpoint.

    Args:
        setting: backbone and task, such as `"vilt/vqa"`.
        settings: how to measure.
        reduction: another schedule than the paper's for this task.
        text_length: tokens per text; default: that of the paper's FLOPs.
        output: a JSON file for the results.
    """
    check_output(output)
    backbone, _, task = setting.partition("/")
    model = paper_model(backbone, task, **({} if reduction is SAVED else {"reduction": reduction}))
    if model.reduction is None:
        raise unreduced_error(model, setting)
    text_length = QUESTION_LENGTH if text_length is None else text_length
    return bench_model(model, {"setting": setting}, settings, text_length, output)


def bench_model(
    model: PuMerPreTrainedModel,
    facts: dict[str, Any],
    settings: Settings,
    text_length: int | None,
    output: str | Path | None,
) -> list[str]:
    """Measure a model that reduces; `facts` say in the results which it is."""
    text_length = checked_text_length(model, text_length)
    report = {**facts, "reduction": model.config.reduction, "text_length": text_length}
    report |= measure(contenders_of(model, text_length, settings), settings)
    return [format_table(measure_rows(report)), *notes(report, settings), finish(report, output)]


def contenders_of(model: PuMerPreTrainedModel, text_length: int, settings: Settings) -> dict[str, Contender]:
    """The model unreduced, what transformers has of it, and the model as it is."""
    unreduced = copy.deepcopy(model)
    unreduced.set_reduction(None)
    stock = stock_contender(unreduced, text_length, settings)
    return {
        UNREDUCED_NAME: contender(unreduced, text_length, settings),
        **({} if stock is None else {STOCK_NAME: stock}),
        REDUCED_NAME: contender(model, text_length, settings),
    }


def notes(report: dict[str, Any], settings: Settings) -> Sequence[str]:
    """What to know about the table, and whether reduction pays."""
    throughput = report["throughput"]
    lines = [
        f"Speed: {throughput['regime']}, batch {throughput['batch_size']}, {throughput['rounds']} interleaved rounds "
        f"on {settings.device}; {settings.dtype}, matrix products of {settings.matmul_precision} precision"
        + (", compiled" if settings.compile else "")
        + (f", pooled_only: {', '.join(report['pooled_only'])}." if report["pooled_only"] else ".")
    ]
    if STOCK_NAME in throughput:
        gain = throughput[REDUCED_NAME]["ratio"] / throughput[STOCK_NAME]["ratio"]
        lines.append(f"Reduced, it is {gain:.2f} times as fast as stock transformers ({report['dtype'][STOCK_NAME]}).")
    if "memory" in report:
        lines.append("Memory: peak of the activations; weights, gradients and inputs do not count.")
    slow = [f"batch {throughput['batch_size']}"] if throughput["ratio"] < 1 else []
    slow += ["batch 1"] if "latency" in report and report["latency"][REDUCED_NAME]["ratio"] < 1 else []
    if slow:
        where = " and ".join(slow)
        lines.append(f"Reduction does not pay at {where}: the batch is too small, or there are too few tokens.")
    return lines
