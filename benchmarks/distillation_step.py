"""Measure what distillation costs per training step, with a teacher that runs along and with cached logits.

    python benchmarks/distillation_step.py                          # the demo's models, digit scenes
    python benchmarks/distillation_step.py RECIPE.yaml --seconds 60

Three students take training steps in turn: finetuned alone, distilled from cached logits, and distilled from a
teacher that runs along. Weights are random, which is fine for a speed. A step is data loading, forward, backward and
optimiser.
Writes `benchmarks/results/distillation_step.json`.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from datasets import Dataset
from transformers import set_seed

from pumer_hf import DistillationTrainer
from pumer_hf.bench.throughput import interleaved_times
from pumer_hf.data.vqa import VQA
from pumer_hf.figures import duration
from pumer_hf.folders import write_json
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.recipe import Recipe
from pumer_hf.recipes.threads import use_available_cores
from pumer_hf.results import Environment
from pumer_hf.training.teacher_logits import add_teacher_logits

ROOT = Path(__file__).parents[1]


def training_step(trainer: DistillationTrainer) -> Callable[[], None]:
    """Return a function that takes the next step of a trainer."""
    trainer.create_optimizer_and_scheduler(num_training_steps=1_000_000)
    trainer.current_gradient_accumulation_steps = 1  # `train` would set it
    loader = trainer.get_train_dataloader()

    def batches() -> Iterator[dict[str, Any]]:
        while True:
            yield from loader

    endless = batches()

    def step() -> None:
        trainer.training_step(trainer.model, next(endless))
        trainer.optimizer.step()
        trainer.model.zero_grad()

    return step


def trainers(recipe: Recipe, folder: str) -> dict[str, DistillationTrainer]:
    """Return the three trainers by name. Each has its own student."""
    data = VQA.load(replace(recipe.data, train_scenes=200, eval_scenes=1), None)
    teacher, processor = build_teacher(recipe.model, data.labels, VQA.texts(data.train), recipe.data.max_text_length)
    collator = VQA.collator(processor, data, recipe.data, True)
    cached = add_teacher_logits(data.train, teacher, collator, cache_dir=folder)

    def trainer(train: Dataset, **kwargs: Any) -> DistillationTrainer:
        config = {**teacher.config.to_dict(), "reduction": recipe.reduction}
        student = type(teacher)(type(teacher.config).from_dict(config))
        student.load_state_dict(teacher.state_dict())
        args = replace(recipe.training, output_dir=folder)
        return DistillationTrainer(student.train(), args=args, train_dataset=train, data_collator=collator, **kwargs)

    return {"finetuning": trainer(data.train), "cached": trainer(cached), "live": trainer(data.train, teacher=teacher)}


def main() -> None:
    """Measure, print the results, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", type=Path, default=ROOT / "recipes/vilt/digit_scenes/pumer.yaml")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/distillation_step.json")
    args = parser.parse_args()
    recipe = parse_recipe(VQA, args.recipe, [])
    set_seed(recipe.training.seed)
    if recipe.training.device.type == "cpu":
        use_available_cores(recipe.training.world_size)
    with tempfile.TemporaryDirectory() as folder:
        steps = {name: training_step(trainer) for name, trainer in trainers(recipe, folder).items()}
        times = interleaved_times(steps, warmup=5, seconds=args.seconds)
    report: dict[str, Any] = {
        name: {
            "milliseconds": 1000 * median(step_times),
            "ratio": median(time / base for time, base in zip(step_times, times["finetuning"], strict=True)),
        }
        for name, step_times in times.items()
    }
    for name, row in report.items():
        print(f"{name:12} {duration(row['milliseconds'] / 1000):>8} per step   {row['ratio']:.2f}x of finetuning")
    batch = {"rounds": len(times["cached"]), "batch_size": recipe.training.per_device_train_batch_size}
    regime = {**batch, "regime": "training step with data loading", "weights": "random"}
    write_json(args.output, {**regime, **report, **Environment.current().to_dict()})


if __name__ == "__main__":
    main()
