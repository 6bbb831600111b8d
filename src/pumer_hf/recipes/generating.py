"""The answers that a decoder model generates to questions about images, and their accuracy."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.chat import ChatCollator
from ..metrics.vqa import answer_scores, normalize_answer, score_report
from ..results import PERCENT, Evaluation


@torch.inference_mode()
def generated_answers(
    model: PreTrainedModel,
    collator: ChatCollator,
    rows: Dataset,
    *,
    batch_size: int = 250,
    max_new_tokens: int = 8,
    show: bool = True,
) -> list[str]:
    """Return the answer that a model generates to each row, greedily, in the order of the rows.

    If there are several processes, each generates a part.

    Args:
        model: a decoder model.
        collator: makes prompts, so `with_answers` is off.
        rows: rows with images and questions.
        batch_size: rows per call of `generate`.
        max_new_tokens: the longest answer, in tokens with the one that ends it.
        show: whether to show the progress.
    """
    state = PartialState()
    answers: list[str] = []
    model.eval()
    with state.split_between_processes(list(range(len(rows)))) as indices:
        starts = range(0, len(indices), batch_size)
        for start in tqdm(starts, desc="generate", disable=not show or not state.is_local_main_process):
            batch = collator([rows[index] for index in indices[start : start + batch_size]])
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            sequences = model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=collator.pad_token_id
            )
            new = sequences[:, inputs["input_ids"].shape[1] :]
            answers += collator.processor.batch_decode(new, skip_special_tokens=True)
    return gather_object(answers)


def evaluate_answers(answers: Sequence[str], rows: Dataset) -> Evaluation:
    """Return the accuracy of generated answers: an answer scores as its annotators agree with it ([`answer_scores`]).

    Case and white space around an answer do not matter. If rows have `kind` and `groups`, there is the accuracy of
    each too.

    Args:
        answers: an answer per row.
        rows: rows with `answers`.
    """
    given = rows["answers"][:]
    weights = rows["answer_weights"][:] if "answer_weights" in rows.column_names else [None] * len(given)
    scores = [
        answer_scores(right, weight).get(normalize_answer(answer), 0.0)
        for answer, right, weight in zip(answers, given, weights, strict=True)
    ]
    return Evaluation.from_dict(score_report(np.array(scores), rows), {"accuracy": PERCENT})
