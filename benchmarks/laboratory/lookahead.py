"""The study of `lookahead`: the accuracy of a frozen model with each choice of patches before the first layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import set_seed

from pumer_hf.data.task import TaskData
from pumer_hf.data.tasks import TASKS
from pumer_hf.models.bases import base_of
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.models.loading import load_checkpoint
from pumer_hf.models.observing import observe
from pumer_hf.recipes.image_use import with_wrong_images, without_images
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.reducers import TokenReducer, parse_method
from pumer_hf.reducers.lookahead import LookaheadReducer, LookaheadReductionConfig, TargetLayer
from pumer_hf.training.answers import (
    ANYWHERE,
    BUDGETS,
    ByLength,
    Choice,
    always,
    attention_by_length,
    choose_layer,
    given,
    measured_speeds,
    rivals,
    with_config,
)
from pumer_hf.training.scorer import ScorerTrainer, ScorerTrainingArguments, add_scorer
from pumer_hf.training.scorer_answers import AnswersTrainer

from .lookahead_results import Accuracy, ChoiceRow, SeedAccuracy

VQA = TASKS["vqa"]
OTHERS: dict[str, dict[str, Any]] = {
    "diverse (max_min)": {"method": "diverse", "diversity": "max_min"},
    "grid": {"method": "grid"},
}
"""Methods that need no training, beside [`RIVALS`]. They work before the first layer."""
PART: dict[str, Any] = {"method": "lookahead", "site": "inputs", "keep_ratio": 1.0}
TARGET_EXAMPLES = 500
"""Questions of the training data on which the layer to predict is chosen."""
SPEED_BATCH = 64
"""Examples per forward whose speed is measured."""
UNSEEN_WORDS = {"red", "seven", "sevens"}
UNSEEN = "red or seven"
"""The group of questions with one of these words."""
Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bench:
    """A frozen teacher and its data."""

    model: PuMerPreTrainedModel
    data: TaskData
    collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    batch_size: int

    @classmethod
    def load(cls, teacher: str, recipe: Path, flags: Sequence[str] = (), batch_size: int = 250) -> "Bench":
        """Load a teacher, and the data of a recipe.

        Args:
            teacher: a folder or an id on the Hub.
            recipe: a recipe of VQA. Its `data` block counts.
            flags: flags that change this block.
            batch_size: examples per forward of the evaluation.
        """
        model, processor = load_checkpoint(teacher, None)
        args = parse_recipe(VQA, recipe, [str(recipe), *flags]).data
        labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        data = VQA.load(args, labels)
        return cls(model, data, VQA.collator(processor, data, args, False), batch_size)

    @cached_property
    def batches(self) -> list[dict[str, Tensor]]:
        """The test data as model inputs with labels."""
        return self.encoded(self.data.test)

    @cached_property
    def target_batches(self) -> list[dict[str, Tensor]]:
        """Some of the training data, on which the layer to predict is chosen."""
        return self.encoded(self.data.train.select(range(min(TARGET_EXAMPLES, len(self.data.train)))))

    def encoded(self, rows: Dataset) -> list[dict[str, Tensor]]:
        """Return rows as batches."""
        starts = range(0, len(rows), self.batch_size)
        return [
            self.collator([rows[index] for index in range(start, min(start + self.batch_size, len(rows)))])
            for start in tqdm(starts, desc="Encoding", leave=False)
        ]

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """By name of a group of test questions, which ones belong to it. Data of other kinds have no groups."""
        test = self.data.test
        if "groups" not in test.column_names:
            return {}
        members = test["groups"][:]
        names = sorted({name for row in members for name in row})
        found = {name: np.array([name in row for row in members]) for name in names}
        return {**found, UNSEEN: np.array([has_unseen_word(text) for text in test["question"]])}

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        first = {name: value[:1] for name, value in self.batches[0].items() if name != "labels"}
        return observe(self.model, first, []).pair.image.mask.shape[1] - 1

    @torch.inference_mode()
    def scores(self, choices: Mapping[str, Choice], layers: Sequence[TargetLayer] = ()) -> Scores:
        """Return the score of each test question, float (N,) in [0, 1], for each choice of patches.

        Args:
            choices: by name, what makes the reducers of a batch.
            layers: the layers whose attention the choices read; `"all"` for the mean of all.
        """
        found: dict[str, list[Tensor]] = {name: [] for name in choices}
        for batch in tqdm(self.batches, desc="Evaluating", leave=False):
            labels = batch["labels"]
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            seen = base_of(self.model).observe(inputs, layers, ANYWHERE) if layers else []
            attention = attention_by_length(seen, layers)
            for name, choice in choices.items():
                with self.model.token_reduction.using(choice(attention)):
                    answer = self.model(**inputs).logits.argmax(dim=-1, keepdim=True)
                found[name].append(labels.gather(1, answer).squeeze(1))
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}

    def accuracy(self, scores: np.ndarray) -> Accuracy:
        """Return the accuracy in percent, in all and by group."""
        by_group = {name: 100 * float(scores[rows].mean()) for name, rows in self.groups.items() if rows.any()}
        return Accuracy(100 * float(scores.mean()), by_group)


def has_unseen_word(text: str) -> bool:
    """Return whether a question has one of `UNSEEN_WORDS`."""
    return not UNSEEN_WORDS.isdisjoint(text.rstrip("?").split())


def unreduced(attention: Mapping[TargetLayer, ByLength]) -> Mapping[str, TokenReducer]:
    """The choice that keeps all patches."""
    return {}


def baselines(bench: Bench) -> dict[str, Accuracy]:
    """Return the accuracy of the teacher: as it is, without the image, and with a wrong one."""
    wrong = replace(bench.data, test=with_wrong_images(bench.data.test))
    benches = {
        "unreduced": bench,
        "no image": replace(bench, collator=without_images(bench.collator)),
        "wrong image": replace(bench, data=wrong),
    }
    return {name: one.accuracy(one.scores({name: unreduced})[name]) for name, one in benches.items()}


def train_scorer(
    bench: Bench, rows: Dataset, seed: int, steps: tuple[int, int], folder: Path, fields: Mapping[str, Any]
) -> LookaheadReducer:
    """Train a scorer for the teacher of a bench, and return it.

    Args:
        bench: the teacher.
        rows: questions about images. Their answers are not read.
        seed: the seed of the first weights and of the order of the rows.
        steps: numbers of steps: to predict the attention, and to keep the answers. Without the first, the scorer keeps
            its first weights.
        folder: where the trained scorer is kept. If it is there, it is not trained again.
        fields: other fields of the part `lookahead`.
    """
    attention_steps, answer_steps = steps
    model = bench.model
    part = {**PART, **fields}
    config = parse_method(part)
    assert isinstance(config, LookaheadReductionConfig), "PART has its method"
    kept = folder / f"{config.site}-{config.form}-seed{seed}-{attention_steps}-{answer_steps}.safetensors"
    layer = config.target_layer
    if layer is None:
        layer, _ = choose_layer(model, config, bench.target_batches)
    set_seed(seed)
    reducer = add_scorer(model, replace(config, target_layer=layer))
    args = ScorerTrainingArguments(
        output_dir=str(folder), seed=seed, max_steps=attention_steps, save_strategy="no", answer_steps=answer_steps
    )
    if kept.is_file():
        reducer.load_state_dict(load_file(kept))
    elif attention_steps:
        ScorerTrainer(model, args=args, train_dataset=rows, data_collator=bench.collator).train()
    if answer_steps and not kept.is_file():
        AnswersTrainer(model, args=args.for_answers(), train_dataset=rows, data_collator=bench.collator).train()
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file(reducer.state_dict(), kept)
    model.set_reduction(None)
    return reducer.eval().requires_grad_(False)


def choices_of(bench: Bench, reducer: LookaheadReducer, kept: str) -> dict[str, Choice]:
    """Return the choices that the table compares at one number of patches, by name of the method.

    Args:
        bench: the teacher.
        reducer: a scorer. Only its config counts for the other methods.
        kept: a key of [`BUDGETS`].
    """
    config = replace(reducer.config, keep_ratio=BUDGETS[kept], num_keep=None)
    number, layer = max(round(BUDGETS[kept] * bench.num_patches), 1), config.target_layer
    assert layer is not None, "`train_scorer` has chosen it"
    found: dict[str, Choice] = {
        "lookahead": always(config.site, with_config(reducer, config)),
        "lookahead alone": always(config.site, with_config(reducer, replace(config, diversity=None))),
    }
    for name, rival in rivals(bench.model, config, number, bench.num_patches).items():
        found[name] = always(config.site, rival)
    for name, fields in OTHERS.items():
        other = {"site": "inputs", "num_keep": number, **fields}
        found[name] = always("inputs", bench.model.base_model.make_reducer(parse_method(other)).eval())
    alone = replace(config, diversity=None)
    found["attention of layer 0"], found["attention of the target"] = given(alone, 0), given(alone, layer)
    return found


LEARNED = ("lookahead", "lookahead alone")
"""The choices that differ from seed to seed."""
ORACLES = ("attention of layer 0", "attention of the target")
"""The choices that need a forward of the whole model first. They have no speed."""


def main_rows(
    bench: Bench, scorers: Mapping[int, LookaheadReducer], seconds: float, known: Sequence[ChoiceRow] = ()
) -> list[ChoiceRow]:
    """Return the accuracy of each choice at each number of patches, and its measured speed.

    Args:
        bench: the teacher.
        scorers: a scorer per seed.
        seconds: how long the speed of all choices is measured.
        known: rows whose accuracy is not measured again.
    """
    measured = {(row.kept, row.name): row.runs for row in known}
    first, *_ = scorers
    choices = {(kept, seed): choices_of(bench, scorers[seed], kept) for kept in BUDGETS for seed in scorers}
    wanted = {
        (kept, name, seed): choice
        for (kept, seed), by_name in choices.items()
        for name, choice in by_name.items()
        if (seed == first or name in LEARNED) and (kept, name) not in measured
    }
    layer = scorers[first].config.target_layer
    targets = list(dict.fromkeys([0, 0 if layer is None else layer]))
    scores = bench.scores({repr(key): choice for key, choice in wanted.items()}, targets)
    speeds = choice_speeds(bench, scorers[first], seconds)
    rows = []
    for kept, ratio in BUDGETS.items():
        for name in choices[kept, first]:
            runs = measured.get((kept, name)) or tuple(
                SeedAccuracy(seed if name in LEARNED else None, bench.accuracy(scores[repr((kept, name, seed))]))
                for seed in scorers
                if (kept, name, seed) in wanted
            )
            number = max(round(ratio * bench.num_patches), 1)
            rows.append(ChoiceRow(name, kept, number, runs, speeds.get(f"{kept} {name}")))
    return rows


def choice_speeds(bench: Bench, reducer: LookaheadReducer, seconds: float) -> dict[str, float]:
    """Measure the speed of each choice against the unreduced model, interleaved in one run.

    Args:
        bench: the teacher.
        reducer: a scorer.
        seconds: how long to measure in all.

    Returns:
        The speeds, by the number of patches and the name of the choice: `"1/9 lookahead"`.
    """
    choices = {(kept, name): choice for kept in BUDGETS for name, choice in choices_of(bench, reducer, kept).items()}
    timed = {f"{kept} {name}": dict(choice({})) for (kept, name), choice in choices.items() if name not in ORACLES}
    first = bench.encoded(bench.data.test.select(range(SPEED_BATCH)))[0]
    inputs = {name: value for name, value in first.items() if name != "labels"}
    return measured_speeds(bench.model, timed, inputs, seconds)


@dataclass(frozen=True)
class Carry:
    """Other data that a scorer is trained on."""

    name: str
    """What the table calls them."""
    flags: tuple[str, ...] = ()
    """Flags that change the `data` block of the recipe."""
    accepts: Callable[[dict[str, Any]], bool] | None = None
    """Which rows are taken; None: all."""
    number: int | None = None
    """How many rows are taken; None: all."""
    trained: bool = True
    """Whether the scorer is trained at all."""

    def rows(self, bench: Bench, reload: Callable[[Sequence[str]], Bench]) -> Dataset:
        """Return the training rows."""
        rows = (reload(self.flags) if self.flags else bench).data.train
        if self.accepts is not None:
            rows = rows.select([index for index, row in enumerate(texts_of(rows)) if self.accepts(row)])
        return rows if self.number is None else rows.select(range(self.number))


def texts_of(rows: Dataset) -> Dataset:
    """Return the rows without their images."""
    return rows.select_columns(["question", "kind"])


ANY_SETTING = (
    Carry("all questions"),
    Carry("2,000 questions", number=2000),
    Carry("200 questions", number=200),
    Carry("no question with red or seven", accepts=lambda row: not has_unseen_word(row["question"])),
    Carry("no question 'what digit is <colour>?'", accepts=lambda row: row["kind"] != "digit_by_colour"),
    Carry("not trained at all", trained=False),
)
CARRIES: dict[str, tuple[Carry, ...]] = {
    "plain": (*ANY_SETTING, Carry("cluttered scenes only", flags=("--setting", "cluttered"))),
    "cluttered": (
        *ANY_SETTING,
        Carry("sparse scenes only", flags=("--dense_part", "0")),
        Carry("dense scenes only", flags=("--dense_part", "1")),
        Carry("plain scenes only", flags=("--setting", "plain")),
    ),
}
"""The data of scorers that are used where they were not trained, by the setting of the test."""


def carry_rows(bench: Bench, name: str, scorers: Mapping[int, LookaheadReducer]) -> list[ChoiceRow]:
    """Return the accuracy of scorers that were trained on other data, at each number of patches."""
    wanted = {
        (kept, seed): choices_of(bench, reducer, kept)["lookahead"]
        for kept in BUDGETS
        for seed, reducer in scorers.items()
    }
    scores = bench.scores({repr(key): choice for key, choice in wanted.items()})
    return [
        ChoiceRow(
            name,
            kept,
            max(round(ratio * bench.num_patches), 1),
            tuple(SeedAccuracy(seed, bench.accuracy(scores[repr((kept, seed))])) for seed in scorers),
        )
        for kept, ratio in BUDGETS.items()
    ]
