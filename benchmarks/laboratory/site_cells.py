"""Measures and trains the models of the study of sites."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedModel, PrinterCallback, set_seed

from pumer_hf.data.chat import TEACHER_LOG_PROBS, TEACHER_TOKENS, ChatCollator, teacher_answers
from pumer_hf.data.vqa import VqaDataArguments, scene_questions
from pumer_hf.models.reduced import decoder_of
from pumer_hf.recipes.image_use import with_wrong_images
from pumer_hf.training.arguments import DistillationTrainingArguments
from pumer_hf.training.teacher_logits import answer_columns
from pumer_hf.training.trainer import DistillationTrainer

from .decoders import DecoderBench
from .site_results import SiteScore
from .site_speeds import Schedule, Stopwatch, inputs_for

LONGEST_ANSWER = 4
"""The longest answer that is generated, in tokens with the one that ends it."""
BATCH_SIZE = 250
"""Prompts of a prefill."""
QUESTIONS_PER_IMAGE = 4
"""Questions about each scene of the data."""
IMAGES_PER_STEP = 16
"""Images in a step of the training. Each question is a row, since a row of several cannot be cut by its text."""
TRAINING: dict[str, Any] = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
    "alpha": 1.0,
}
"""The training arguments of the recipe of the student."""
WARMUP = 0.1
"""The part of the steps in which the learning rate grows."""
Batch = dict[str, Tensor]


class Batches(TorchDataset):
    """A dataset whose items are batches."""

    def __init__(self, batches: Sequence[Batch]):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def only(batches: Sequence[Batch]) -> Batch:
    """Return the one batch of a list."""
    (batch,) = batches
    return batch


@dataclass(frozen=True)
class SiteData:
    """The questions of a setting, as the inputs of its models."""

    bench: DecoderBench
    """A model, which gives the processor, and the test questions."""
    setting: Any
    """Of the scenes, `"plain"` or `"cluttered"`."""
    steps: int
    """Steps of the training."""

    def collated(self, rows: Any) -> list[Batch]:
        """Return rows as batches for `generate`, padded on the left, with maps for `grounded`."""
        collator, size = ChatCollator(self.bench.processor, saliency_side=self.bench.side), self.bench.batch_size
        return [collator(list(rows.select(part))) for part in _parts(len(rows), size)]

    @cached_property
    def test(self) -> list[Batch]:
        """The test questions."""
        return self.collated(self.bench.rows)

    @cached_property
    def wrong(self) -> list[Batch]:
        """The test questions, each with the image of another one."""
        return self.collated(with_wrong_images(self.bench.rows))

    @cached_property
    def answers(self) -> list[list[int]]:
        """The tokens of the right answers, with the one that ends them."""
        collator = ChatCollator(self.bench.processor)
        return [collator.answer_tokens(row) for row in self.bench.rows.select_columns(["answers"])]

    @cached_property
    def train(self) -> list[Batch]:
        """The training questions, one batch for each step."""
        arguments = VqaDataArguments(setting=self.setting, grid_size=self.bench.side)
        rows = scene_questions(arguments, "train", self.steps * IMAGES_PER_STEP)
        collator = ChatCollator(self.bench.processor, with_answers=True, saliency_side=self.bench.side)
        parts = _parts(len(rows), IMAGES_PER_STEP * QUESTIONS_PER_IMAGE)
        return [collator(list(rows.select(part))) for part in parts]


@dataclass(frozen=True)
class SiteLab:
    """A teacher, and the students that begin as copies of it."""

    folder: str
    """The teacher."""
    scorer: str | None
    """A trained scorer of the teacher, for `lookahead`."""
    seed: int
    data: SiteData
    device: str = "cpu"

    def load(self, schedule: Schedule | None) -> PreTrainedModel:
        """Load a copy of the teacher with a schedule, in eval mode. What the teacher lacks is drawn by the seed."""
        family, _ = decoder_of(self.data.bench.model)
        set_seed(self.seed)
        return family.model_class.from_pretrained(self.folder, reduction=schedule).to(self.device).eval()

    def stopwatch(self, seconds: float) -> Stopwatch:
        """Return what measures the prefill of the teacher."""
        batch = self._on_device(self.data.test[0])
        return Stopwatch(self.load, batch, self.data.bench.side**2, self.scorer, seconds)

    @cached_property
    def train(self) -> list[Batch]:
        """The training data, with what the teacher says about each answer token: the whole distribution."""
        teacher = self.load(None)
        vocabulary = teacher.get_input_embeddings().weight.shape[0]
        return [{**batch, **self._teacher_says(teacher, batch, vocabulary)} for batch in self.data.train]

    def _teacher_says(self, teacher: PreTrainedModel, batch: Batch, top_k: int) -> Batch:
        columns = answer_columns(teacher, self._on_device(inputs_for(batch, [])), top_k)
        values = zip(columns[TEACHER_TOKENS], columns[TEACHER_LOG_PROBS], strict=True)
        return teacher_answers([{TEACHER_TOKENS: one, TEACHER_LOG_PROBS: two} for one, two in values])

    def trained(self, schedule: Schedule | None) -> PreTrainedModel:
        """Train a copy of the teacher behind a schedule, on the task and on what the teacher says."""
        student = self.load(schedule)
        batches = [inputs_for(batch, schedule or []) for batch in self.train]
        with tempfile.TemporaryDirectory() as folder:
            arguments = DistillationTrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=1,  # an item is a batch
                max_steps=len(batches),
                warmup_steps=round(WARMUP * len(batches)),
                seed=self.seed,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=self.device == "cpu",
                **TRAINING,
            )
            trainer = DistillationTrainer(
                student,
                args=arguments,
                train_dataset=Batches(batches),
                data_collator=only,
                processing_class=self.data.bench.processor,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return student.eval()

    @torch.inference_mode()
    def score(self, model: PreTrainedModel, schedule: Schedule | None, batches: Sequence[Batch]) -> SiteScore:
        """Generate the answers of a model, and compare them with the right ones.

        Args:
            model: the model.
            schedule: its schedule.
            batches: the test questions.
        """
        bench, right, ended = self.data.bench, [], []
        end = ChatCollator(bench.processor).end_token_id
        expected = iter(self.data.answers)
        for batch in batches:
            inputs = self._on_device(inputs_for(batch, schedule or []))
            found = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
            for tokens in found[:, inputs["input_ids"].shape[1] :].tolist():
                answer = next(expected)
                right.append(tokens[: len(answer)] == answer)
                ended.append(end in tokens)
        accuracy = bench.accuracy(np.array(right, dtype=float))
        return SiteScore(accuracy, 100 * float(np.mean(ended)))

    def baselines(self) -> dict[str, SiteScore]:
        """Return the scores of the teacher: as it is, with images of 0, and with those of other questions."""
        model, test = self.load(None), self.data.test
        empty = [{**batch, "pixel_values": torch.zeros_like(batch["pixel_values"])} for batch in test]
        known = {"unreduced": test, "no image": empty, "wrong image": self.data.wrong}
        return {name: self.score(model, None, batches) for name, batches in known.items()}

    def _on_device(self, batch: Mapping[str, Tensor]) -> Batch:
        return {name: value.to(self.device) for name, value in batch.items()}


def load_labs(
    setting: str, folders: Mapping[int, str], scorers: Mapping[int, str], questions: int, steps: int
) -> list[SiteLab]:
    """Return the teachers of a setting. They share the data.

    Args:
        setting: of the scenes.
        folders: the teachers by seed.
        scorers: their scorers by seed.
        questions: how many test questions.
        steps: steps of the training.

    Raises:
        ValueError: the teachers have different vocabularies.
    """
    first, *others = folders.values()
    data = SiteData(
        replace(DecoderBench.load(first, setting, "test", questions, "cpu"), batch_size=BATCH_SIZE), setting, steps
    )
    known = data.bench.processor.tokenizer.get_vocab()
    for folder in others:
        if DecoderBench.load(folder, setting, "test", 1, "cpu").processor.tokenizer.get_vocab() != known:
            raise ValueError(f"--teachers {folder}: other words than those of {first}: train both on the same data")
    return [SiteLab(folder, scorers.get(seed), seed, data) for seed, folder in folders.items()]


def _parts(number: int, size: int) -> list[range]:
    return [range(start, min(start + size, number)) for start in range(0, number, size)]
