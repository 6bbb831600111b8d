"""Train PuMer for visual question answering: a teacher, then a student that prunes and merges its tokens.

    accelerate launch recipes/train_vqa.py                                  # handwritten digits, from scratch
    accelerate launch recipes/train_vqa.py RECIPE.yaml --prune_ratio 0.2    # flags override the recipe
    accelerate launch recipes/train_vqa.py --help

Writes `teacher/` and `student/`, which load with `AutoModel.from_pretrained`, and `results.json`.
"""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from transformers import set_seed

from pumer_hf.data.vqa import VqaCollator, VqaDataArguments, load_vqa
from pumer_hf.metrics.vqa import accuracy, accuracy_report, language_baselines
from pumer_hf.training.build import build_teacher, load_model, teacher_labels
from pumer_hf.training.placement import whole_models
from pumer_hf.training.recipe import exit_on_user_error, parse_recipe
from pumer_hf.training.report import cost_report, format_report
from pumer_hf.training.stages import check_new_run, predict, train_stage
from pumer_hf.training.threads import use_available_cores

DEFAULT_RECIPE = Path(__file__).parent / "vilt" / "digit_scenes" / "pumer.yaml"


def main() -> None:
    """Teacher, student, report."""
    with exit_on_user_error():
        recipe = parse_recipe(VqaDataArguments, default=DEFAULT_RECIPE)
        check_new_run(recipe.training)
        data = load_vqa(recipe.data, labels=teacher_labels(recipe.model))
    set_seed(recipe.training.seed)
    if recipe.training.device.type == "cpu":
        use_available_cores(recipe.training.world_size)

    teacher, processor = build_teacher(recipe.model, data.labels, data.train["question"], recipe.data.max_text_length)
    with exit_on_user_error():
        teacher.config.checked(recipe.reduction)  # before hours of training, not after
    collator = VqaCollator(processor, data.labels, recipe.data.max_text_length, recipe.data.square_images)
    train = partial(
        train_stage,
        train=data.train,
        validation=data.validation,
        collator=collator,
        processor=processor,
        compute_metrics=accuracy,
    )

    folders = {name: recipe.stage(name).output_dir for name in ("teacher", "student")}
    if recipe.model.teacher is None:
        train(recipe.stage("teacher"), teacher)
    else:
        folders["teacher"] = recipe.model.teacher
    if recipe.reduction is None:
        del folders["student"]
    else:
        student = load_model(folders["teacher"], recipe.reduction)
        with nullcontext() if recipe.training.shard_teacher else whole_models(recipe.training):
            frozen = load_model(folders["teacher"], None)
        train(recipe.stage("student"), student, teacher=frozen)

    reductions = {"teacher": None, "student": recipe.reduction}
    with whole_models(recipe.training):
        models = {
            name: load_model(folder, reductions[name]).to(recipe.training.device) for name, folder in folders.items()
        }
    report = {
        name: accuracy_report(*predict(recipe.training, model, data.test, collator), data.test)
        for name, model in models.items()
    }
    if recipe.training.process_index == 0:
        rows = data.test.select(range(min(recipe.training.per_device_eval_batch_size, len(data.test))))
        batch = {
            name: value.to(recipe.training.device) for name, value in collator(list(rows)).items() if name != "labels"
        }
        report |= cost_report(models, batch, recipe.training.benchmark_seconds)
        report["baselines"] = language_baselines(data.train, data.test)
        results = Path(recipe.training.output_dir) / "results.json"
        results.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(format_report(report, list(models)), f"Written to {results}", sep="\n")


if __name__ == "__main__":
    main()
