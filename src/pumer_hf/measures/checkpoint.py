"""`pumer-hf measure` measures how well the tokens that a checkpoint keeps explain its answers."""

import math
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from ..models.loading import SAVED, load_checkpoint, unreduced_error
from ..results import Environment, check_results_file
from .batches import BATCH_SIZE, scene_batches, vqa_hat_batches
from .measuring import measure_explanations
from .report import ExplanationReport

NUM_SCENES = 200
QUESTIONS_PER_SCENE = 4


def measure_checkpoint(
    source: str,
    *,
    reduction: Any = SAVED,
    scenes: int = NUM_SCENES,
    vqa_hat: Dataset | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    output: str | Path | None = None,
) -> list[str]:
    """Measure a checkpoint that answers questions, on digit scenes or on VQA-HAT ([`measure_explanations`]).

    Args:
        source: a folder, or an id on the Hub.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        scenes: how many digit scenes of the test split to measure on, unless `vqa_hat` is given.
        vqa_hat: rows from [`read_vqa_hat`].
        batch_size: examples per forward.
        seed: the seed of the random baselines.
        output: a JSON file for the results.

    Returns:
        Lines to print: a table and notes.

    Raises:
        ValueError: the model reduces nothing or does not answer questions, or a value is out of range.
        FileNotFoundError: there is no folder for `output`.
    """
    check_results_file(output)
    model, processor = load_checkpoint(source, reduction)
    if model.reduction is None:
        raise unreduced_error(model, source)
    if vqa_hat is None:
        data, batches = "digit scenes", scene_batches(model, processor, scenes, batch_size)
    else:
        data, batches = "VQA-HAT", vqa_hat_batches(model, processor, vqa_hat, batch_size)
    questions = QUESTIONS_PER_SCENE * scenes if vqa_hat is None else len(vqa_hat)
    progress = tqdm(batches, total=math.ceil(questions / batch_size), desc="Measuring", unit="batch", leave=False)
    explanations = measure_explanations(model, progress, seed)
    report = ExplanationReport(source, model.config.reduction, data, explanations, Environment.current())
    return [str(explanations), report.finish(output)]
