"""What a choice of image tokens that was made for one question costs another question about the same image.

In a chat that goes on with the cache of its first turn, a second question finds the tokens that were kept for the
first one. The small models of the study have learnt one question per prompt. So the second question takes the place of
the first one here: it follows the image tokens that were kept for the first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from pumer_hf.data.several_questions import group_by_image
from pumer_hf.models.reduced import reduced
from pumer_hf.results import markdown_table
from pumer_hf.training.answers import BUDGETS

from .decoder_results import DecoderReport, MethodRow, cell, count, note
from .decoders import DecoderBench

QUESTIONS_PER_IMAGE = 4
"""The most questions about an image among which the second one follows the first."""
OTHER = ", chosen for another question"
"""What the name of a row adds to that of its method."""
ORIGINAL = "original"
"""The positions of the kept tokens, one of `POSITIONS`."""


def second_methods(keep_ratio: float, scorer: str | None) -> dict[str, dict[str, Any]]:
    """Return the schedules that are compared at one number of tokens, by name. All choose, and merge nothing.

    Args:
        keep_ratio: the part of the image tokens that is kept.
        scorer: the folder of a trained scorer; None for no `lookahead`.
    """
    rows: dict[str, dict[str, Any]] = {
        "diverse (max_min)": {"method": "diverse", "diversity": "max_min"},
        "pumer, nothing merged": {"method": "pumer", "merge_rest": False},
        "relevant_diverse (max_min, p 0.5)": {"method": "relevant_diverse", "diversity": "max_min", "p": 0.5},
        "grounded": {"method": "grounded"},
    }
    if scorer is not None:
        rows["lookahead"] = {"method": "lookahead", "weights": scorer}
    common = {"site": "inputs", "keep_ratio": keep_ratio, "positions": ORIGINAL}
    return {name: {**row, **common} for name, row in rows.items()}


def other_questions(rows: Dataset) -> Dataset:
    """Return, for each row, another one about its image: the next one, and the first for the last.

    Raises:
        ValueError: an image has one question.
    """
    order: list[int] = []
    for group in group_by_image(rows, QUESTIONS_PER_IMAGE):
        if len(group) == 1:
            raise ValueError(f"--second-question: {rows[group[0]]['origin']} is the only question about its image")
        order += [*group[1:], group[0]]
    return rows.select(order)


@torch.inference_mode()
def kept_maps(bench: DecoderBench, schedule: Mapping[str, Any]) -> list[Tensor]:
    """Return which image tokens a schedule keeps, for each batch float (N,): 1 for a kept token, else 0."""
    found = []
    for batch in bench.batches:
        with reduced(bench.model, dict(schedule)) as traces:
            bench.model(**bench.inputs_for(batch, schedule), logits_to_keep=1)
        found.append(torch.cat([torch.isin(trace.columns, trace.kept).float() for trace in traces[0]]))
    return found


def second_question_rows(bench: DecoderBench, scorer: str | None = None) -> Iterator[MethodRow]:
    """Yield the accuracy of each method: with the choice for the question itself, and with that for another one.

    Args:
        bench: the model and the questions.
        scorer: see [`second_methods`].
    """
    first = replace(bench, rows=other_questions(bench.rows))
    for kept, ratio in BUDGETS.items():
        for name, schedule in tqdm(second_methods(ratio, scorer).items(), desc=kept, leave=False):
            yield MethodRow(name, kept, ORIGINAL, bench.accuracy(bench.scores(schedule)))
            if schedule["method"] == "diverse":
                continue  # reads no words
            given = {"method": "grounded", **{field: schedule[field] for field in ("site", "keep_ratio", "positions")}}
            scores = bench.scores(given, kept_maps(first, schedule))
            yield MethodRow(name + OTHER, kept, ORIGINAL, bench.accuracy(scores))


def second_question_table(reports: Mapping[str, DecoderReport]) -> str:
    """Return a table per report: a row per method and per question that it chose for, and a note."""
    parts = []
    for report in reports.values():
        rows = [[report.setting, *(f"{kept} ({count(report, kept)})" for kept in report.kept)]]
        for name in report.names:
            rows.append([name, *(cell(report.values(name, kept, ORIGINAL)) for kept in report.kept)])
        parts.append(f"{markdown_table(rows)}\n\n{note(report)}\n")
    return "\n".join(parts)
