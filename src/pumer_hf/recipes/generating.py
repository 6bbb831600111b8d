"""The answers that a decoder model generates to questions about images, and their scores."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.chat import ChatCollator, answer_of
from ..metrics.vqa import answer_scores, normalize_answer, score_report, token_report
from ..metrics.vqa_accuracy import vqa_accuracy
from ..models.decoders.images import ImageTrace
from ..models.decoders.modeling import ReducedDecoder
from ..models.decoders.prompt import on_device

OFFICIAL_ANNOTATORS = 4
"""The number of annotators per question from which the official accuracy is defined."""


class Generated(NamedTuple):
    """An answer that a model generated."""

    text: str
    ended: bool
    """Whether the model ended it. Otherwise it was cut off at the longest answer."""
    image_tokens: int | None = None
    """How many image tokens the decoder got. None if the schedule alone says it (`keep_mass` differs)."""


@torch.inference_mode()
def generated_answers(
    model: PreTrainedModel,
    collator: ChatCollator,
    rows: Dataset,
    *,
    batch_size: int = 250,
    max_new_tokens: int = 8,
    show: bool = True,
    precision: AbstractContextManager | None = None,
) -> list[Generated]:
    """Return the answer that a model generates to each row, greedily, in the order of the rows.

    If there are several processes, each generates a part.

    Args:
        model: a decoder model.
        collator: makes prompts, so `with_answers` is off.
        rows: rows with images and questions.
        batch_size: rows per call of `generate`.
        max_new_tokens: the longest answer, in tokens with the one that ends it.
        show: whether to show the progress.
        precision: in which the model runs, such as `torch.autocast(...)`; None: that of its weights.
    """
    state = PartialState()
    answers: list[Generated] = []
    ends = end_tokens(model, collator)
    varies = isinstance(model, ReducedDecoder) and any(part.varies for part in model.token_reduction.part_configs)
    model.eval()
    with state.split_between_processes(list(range(len(rows)))) as indices, precision or nullcontext():
        starts = range(0, len(indices), batch_size)
        for start in tqdm(starts, desc="generate", disable=not show or not state.is_local_main_process):
            batch = collator([rows[index] for index in indices[start : start + batch_size]])
            inputs = on_device(batch, model)
            with watched(model) as traces:
                sequences = model.generate(
                    **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=collator.pad_token_id
                )
            new = sequences[:, inputs["input_ids"].shape[1] :]
            ended = torch.isin(new, torch.tensor(ends, device=new.device)).any(dim=1).tolist()
            texts = collator.processor.batch_decode(new, skip_special_tokens=True)
            kept = kept_of_prompts(traces, len(texts)) if varies else [None] * len(texts)
            answers += [Generated(*one) for one in zip(texts, ended, kept, strict=True)]
    return gather_object(answers)


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[list[ImageTrace]]:
    """Yield a list that gets the traces of a model of ours inside a `with` block."""
    traces: list[ImageTrace] = []
    if not isinstance(model, ReducedDecoder):
        yield traces
        return
    before, model.watch = model.watch, traces.extend
    try:
        yield traces
    finally:
        model.watch = before


def kept_of_prompts(traces: Sequence[ImageTrace], number: int) -> list[int]:
    """Return how many image tokens the decoder got of each prompt of a batch."""
    kept = [0] * number
    for trace in traces:
        if trace.layer is None:
            kept[trace.row] += len(trace.kept)
    return kept


def end_tokens(model: PreTrainedModel, collator: ChatCollator) -> list[int]:
    """Return the tokens at which `generate` ends an answer, and the one that ends the answers of the training."""
    config: Any = model.generation_config
    known = config.eos_token_id
    listed = known if isinstance(known, list) else [known]
    return sorted({collator.end_token_id, *(token for token in listed if token is not None)})


def evaluate_answers(answers: Sequence[Generated], rows: Dataset) -> dict[str, Any]:
    """Return the scores of generated answers, all in percent, and the number of questions.

    - `accuracy`: an answer scores as its annotators agree with it ([`answer_scores`]). Case and white space around it
      do not matter. If rows have `kind` and `groups`, there is the accuracy of each too.
    - `exact_match`: the whole answer is the one that most annotators gave, and the model ended it.
    - `vqa_accuracy`: the official accuracy of 2021, if each question has at least four annotators.
    - `ended`: the model ended the answer, whether it was right or not.
    - `image_tokens`: how many image tokens the decoder got on average, if the data decide about it.

    Args:
        answers: an answer per row.
        rows: rows with `answers`.
    """
    given = rows["answers"][:]
    weighted = "answer_weights" in rows.column_names
    weights = rows["answer_weights"][:] if weighted else [None] * len(given)
    texts = [normalize_answer(answer.text) for answer in answers]
    scores = [
        answer_scores(right, weight).get(text, 0.0) for text, right, weight in zip(texts, given, weights, strict=True)
    ]
    agreed = [
        normalize_answer(answer_of({"answers": right, "answer_weights": weight}))
        for right, weight in zip(given, weights, strict=True)
    ]
    ended = np.array([answer.ended for answer in answers])
    exact = ended & np.array([text == right for text, right in zip(texts, agreed, strict=True)])
    report = {**score_report(np.array(scores), rows), "exact_match": 100 * float(exact.mean())}
    kept = [answer.image_tokens for answer in answers if answer.image_tokens is not None]
    if kept:
        report |= token_report(np.array(kept), rows)
    if not weighted and min(map(len, given)) >= OFFICIAL_ANNOTATORS:
        report["vqa_accuracy"] = vqa_accuracy([answer.text for answer in answers], given)
    return {**report, "ended": 100 * float(ended.mean())}
