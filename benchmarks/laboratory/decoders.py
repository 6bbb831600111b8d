"""The study of methods that need no training: how accurate a decoder model stays with fewer image tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from pumer_hf.data.chat import ChatCollator
from pumer_hf.data.vqa import VqaDataArguments, scene_questions
from pumer_hf.models.reduced import decoder_of, reduced
from pumer_hf.recipes.image_use import with_wrong_images
from pumer_hf.reducers.keeping import POSITIONS
from pumer_hf.training.answers import BUDGETS

from .decoder_results import MethodRow
from .lookahead_results import Accuracy

DRAWS = 3
"""How often the method `random` is measured, each time with another seed. Its accuracy is the mean."""
KEPT = {**BUDGETS, "1/18": 1 / 18}
"""The parts of the image tokens that the study keeps."""
PUMER = "pumer"
PRUNED_FIRST = 0.25
"""The part that PuMer's own form prunes before it merges, in one of its rows."""


def methods(keep_ratio: float, scorer: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the schedules that the study compares at one number of tokens, by name. A name may have several draws.

    Args:
        keep_ratio: the part of the image tokens that is kept.
        scorer: the folder of a trained scorer, which adds a row `lookahead`.
    """
    relevant: dict[str, dict[str, Any]] = {
        f"relevant_diverse ({diversity}, p {p:g})": {"method": "relevant_diverse", "diversity": diversity, "p": p}
        for diversity, p in (("coverage", 0.5), ("dpp", 0.5), ("max_min", 0.5), ("max_min", 0.1))
    }
    paper = {"method": PUMER, "form": "paper"}
    rows: dict[str, dict[str, Any]] = {
        "grid": {"method": "grid"},
        "tome": {"method": "tome"},
        "tome, in rounds of a half": {"method": "tome", "round_ratio": 0.5},
        "diverse (dpp)": {"method": "diverse", "diversity": "dpp"},
        "diverse (dpp, rest merged)": {"method": "diverse", "diversity": "dpp", "merge_rest": True},
        "diverse (max_min)": {"method": "diverse", "diversity": "max_min"},
        **relevant,
        PUMER: {"method": PUMER},
        **{f"pumer, p {p:g}": {"method": PUMER, "p": p} for p in (0.0, 0.5)},
        "pumer, contrast 0": {"method": PUMER, "contrast": 0.0},
        "pumer, nothing merged": {"method": PUMER, "merge_rest": False},
        "pumer, spread": {"method": PUMER, "form": "spread"},
        "pumer, the paper's form, prunes alone": {**paper, "prune_ratio": 1 - keep_ratio},
        "pumer, the paper's form, prunes a quarter": {**paper, "prune_ratio": PRUNED_FIRST},
        "grounded": {"method": "grounded"},
    }
    if scorer is not None:
        rows["lookahead"] = {"method": "lookahead", "weights": scorer}
    common = {"site": "inputs", "keep_ratio": keep_ratio}
    random = [{"method": "random", "seed": seed, **common} for seed in range(DRAWS)]
    return {f"random ({DRAWS} draws)": random, **{name: [{**row, **common}] for name, row in rows.items()}}


@dataclass(frozen=True)
class DecoderBench:
    """A model and the questions that it answers."""

    model: PreTrainedModel
    processor: ProcessorMixin
    rows: Dataset
    batch_size: int = 500
    has_images: bool = True
    """Whether the model sees the images. If not, all pixel values are 0."""

    @classmethod
    def load(cls, folder: str, setting: Any, split: str, num_questions: int, device: str) -> "DecoderBench":
        """Load a model, and questions about digit scenes.

        Args:
            folder: the model, with its processor.
            setting: of the scenes, `"plain"` or `"cluttered"`.
            split: of the scenes.
            num_questions: how many questions.
            device: where the model runs.
        """
        model = AutoModelForImageTextToText.from_pretrained(folder).to(device).eval()
        processor = AutoProcessor.from_pretrained(folder)
        vision = model.config.vision_config
        arguments = VqaDataArguments(setting=setting, grid_size=vision.image_size // vision.patch_size)
        return cls(model, processor, scene_questions(arguments, split, -(-num_questions // 4)))

    @property
    def side(self) -> int:
        """Rows and columns of the image tokens of an image."""
        vision = self.model.config.vision_config
        return vision.image_size // vision.patch_size

    @cached_property
    def batches(self) -> list[dict[str, Any]]:
        """The questions as inputs of the model, with images that are encoded already, and maps for `grounded`."""
        collator = ChatCollator(self.processor, saliency_side=self.side)
        found = []
        for start in tqdm(range(0, len(self.rows), self.batch_size), desc="Encoding", leave=False):
            stop = min(start + self.batch_size, len(self.rows))
            batch = collator([self.rows[index] for index in range(start, stop)])
            if not self.has_images:
                batch["pixel_values"] = torch.zeros_like(batch["pixel_values"])
            found.append(self.encoded(batch))
        return found

    @torch.inference_mode()
    def encoded(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Return a batch with the features of its images in the place of the pixels."""
        inputs: dict[str, Any] = {name: value.to(self.model.device) for name, value in batch.items()}
        family, model = decoder_of(self.model)
        features, of_images = family.encode_images(model, inputs)
        kept = {name: value for name, value in inputs.items() if name not in of_images}
        return {**kept, "mm_encoder_outputs": {"image": features}}

    @cached_property
    def answers(self) -> Tensor:
        """The first token of each answer, long (N,)."""
        tokens = self.processor.tokenizer([given[0] for given in self.rows["answers"]], add_special_tokens=False)
        return torch.tensor([ids[0] for ids in tokens["input_ids"]])

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """By name of a group of questions, which ones belong to it, bool (N,)."""
        members = self.rows["groups"][:]
        names = sorted({name for row in members for name in row})
        return {name: np.array([name in row for row in members]) for name in names}

    def inputs_for(self, batch: Mapping[str, Any], schedule: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what a model with a schedule reads of a batch: a map only for the method that needs it."""
        needs_map = schedule is not None and schedule["method"] == "grounded"
        return {name: value for name, value in batch.items() if needs_map or name != "image_saliency"}

    @torch.inference_mode()
    def scores(self, schedule: Mapping[str, Any] | None, maps: Sequence[Tensor] | None = None) -> np.ndarray:
        """Return which questions are answered right, float (N,) in {0, 1}.

        Args:
            schedule: the schedule of the model; None: unreduced.
            maps: for the method `grounded`, another map for each batch.
        """
        found = []
        for number, whole in enumerate(self.batches):
            batch = self.inputs_for(whole, schedule)
            if maps is not None:
                batch["image_saliency"] = maps[number]
            if schedule is None:
                logits = self.model(**batch, logits_to_keep=1).logits
            else:
                with reduced(self.model, dict(schedule)):
                    logits = self.model(**batch, logits_to_keep=1).logits
            found.append(logits[:, -1].argmax(dim=-1).cpu())
        return (torch.cat(found) == self.answers).double().numpy()

    def accuracy(self, scores: np.ndarray) -> Accuracy:
        """Return the accuracy in percent, in all and by group."""
        by_group = {name: 100 * float(scores[rows].mean()) for name, rows in self.groups.items() if rows.any()}
        return Accuracy(100 * float(scores.mean()), by_group)


def decoder_baselines(bench: DecoderBench) -> dict[str, Accuracy]:
    """Return the accuracy of the unreduced model: as it is, without the image, and with that of another question.

    Without the image, the pixel values are all 0.
    """
    benches = {
        "unreduced": bench,
        "no image": replace(bench, has_images=False),
        "wrong image": replace(bench, rows=with_wrong_images(bench.rows)),
    }
    return {name: one.accuracy(one.scores(None)) for name, one in benches.items()}


def method_rows(bench: DecoderBench, scorer: str | None = None) -> Iterator[MethodRow]:
    """Yield the accuracy of each method at each number of tokens, with both kinds of positions.

    Args:
        bench: the model and the questions.
        scorer: see [`methods`].
    """
    for kept, ratio in KEPT.items():
        for name, draws in tqdm(methods(ratio, scorer).items(), desc=kept, leave=False):
            for positions in POSITIONS:
                scores = np.mean([bench.scores({**draw, "positions": positions}) for draw in draws], axis=0)
                yield MethodRow(name, kept, positions, bench.accuracy(scores))
