"""Checks of a recipe before hours of training: parts that contradict each other, and what cannot be done."""

from dataclasses import replace

from huggingface_hub import constants
from transformers.integrations import is_deepspeed_zero3_enabled

from ..data.collator import Collator
from ..models.budget import fit
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import patch_size
from ..reducers import reducer_class
from ..release import needs_wheel
from ..training.trainer import check_label_smoothing
from ..wheel import installation
from .adapters import check_adapters
from .decoders import check_decoder_recipe
from .recipe import Recipe, RecipeTrainingArguments
from .run_plan import trained_stages
from .scorer_stage import check_scorer, check_steps


def with_found_ratios(recipe: Recipe, teacher: PuMerPreTrainedModel) -> Recipe:
    """Return the recipe with the ratios that meet its budget, if its schedule has one.

    Raises:
        ValueError: the schedule is wrong, or cannot meet its budget; or the student has images of another size.
    """
    schedule = teacher.config.checked(recipe.reduction)
    if schedule is None or schedule.flops is None:
        return recipe
    if recipe.model.image_size is not None:
        raise ValueError(
            f"reduction.flops={schedule.flops} does not go with model.image_size, which changes what the unreduced "
            "model spends: give ratios"
        )
    found, budget = fit(schedule, teacher.flops_counter())
    return replace(recipe, reduction=found.to_dict(), budget=budget.to_dict())


def check_recipe(recipe: Recipe, teacher: PuMerPreTrainedModel, collator: Collator) -> None:
    """Raise `ValueError` if parts of a recipe contradict each other, before hours of training."""
    if not recipe.model.is_decoder:
        check_text_length(recipe.data.max_text_length, teacher)
    computed_before = recipe.training.cache_teacher_logits or recipe.model.image_size is not None
    if recipe.training.cache_teacher_logits and collator.is_random:
        raise ValueError("training.cache_teacher_logits is set, but the inputs of a row are drawn anew each time")
    if computed_before and recipe.data.streaming:
        name = "training.cache_teacher_logits" if recipe.training.cache_teacher_logits else "model.image_size"
        raise ValueError(
            f"{name} needs the teacher's logits of all rows in advance, so it does not go with data.streaming"
        )
    check_workers(recipe, collator)
    check_image_size(recipe, teacher, collator)
    check_method(recipe, teacher, collator)
    check_elastic(recipe)
    check_steps(recipe)
    check_scorer(recipe, teacher)


def check_kind(recipe: Recipe) -> None:
    """Raise `ValueError` if a recipe asks for what its kind of models, encoders or decoders, does not have."""
    if recipe.model.is_decoder:
        check_decoder_recipe(recipe)
        check_adapters(recipe)
        return
    for name in ("training", "teacher", "reducer"):
        args = recipe.training if name == "training" else recipe.stage(name)
        if args.questions_per_image > 1:
            raise ValueError(
                f"training.questions_per_image={args.questions_per_image}: is for decoder models: leave it out"
            )


def check_push(args: RecipeTrainingArguments) -> None:
    """Check that a stage can be pushed, if it is to be.

    Raises:
        ValueError: `HF_HUB_OFFLINE` is set.
        ImportError: the push needs a wheel that cannot be made.
    """
    if args.push_to_hub and constants.HF_HUB_OFFLINE:
        raise ValueError(
            "training.push_to_hub=True, but HF_HUB_OFFLINE is set: unset it, or push the folder later with "
            "`pumer-hf push`"
        )
    if args.push_to_hub and needs_wheel():
        installation()


def check_streaming(recipe: Recipe) -> None:
    """Raise `ValueError` if the training data are streamed, but the run needs to know all rows in advance."""
    if not recipe.data.streaming:
        return
    if not recipe.model.teacher and not recipe.model.checkpoint:
        raise ValueError("data.streaming: a model from scratch needs all texts in advance: give model.checkpoint")
    for name in trained_stages(recipe):
        steps = recipe.stage(name).max_steps
        if steps <= 0:
            raise ValueError(
                f"training.max_steps={steps} of the stage {name}: with data.streaming, give a number of steps, since "
                "the number of rows is not known"
            )


def check_seeds(recipe: Recipe) -> None:
    """Raise `ValueError` if a recipe asks for several students, but trains none, or none that differ."""
    number = recipe.training.seeds
    if number == 1:
        return
    if not recipe.has_student:
        raise ValueError(
            f"training.seeds={number}: there is no student (--method none), and only students have several seeds: "
            "leave it out"
        )
    if recipe.training.max_steps == 0 and recipe.untrained_scorer is None:
        raise ValueError(
            f"training.seeds={number}: no part of the student is trained (training.max_steps: 0), so all seeds would "
            "give the same one: leave it out"
        )


def check_text_length(length: int, model: PuMerPreTrainedModel) -> None:
    """Raise `ValueError` if texts of this length are too long for a model."""
    if length > model.config.max_text_length:
        raise ValueError(
            f"data.max_text_length={length}: the model takes at most {model.config.max_text_length} tokens"
        )


def check_workers(recipe: Recipe, collator: Collator) -> None:
    """Raise `ValueError` for random inputs with persistent workers, which would draw the same in each epoch."""
    for name in trained_stages(recipe) if collator.is_random else ():
        if recipe.stage(name).dataloader_persistent_workers:
            raise ValueError(
                f"training.dataloader_persistent_workers=True of the stage {name}: the inputs of a row are drawn anew "
                "each epoch, but such workers would draw the same again; leave it out"
            )


def check_image_size(recipe: Recipe, teacher: PuMerPreTrainedModel, collator: Collator) -> None:
    """Raise `ValueError` if the student cannot have the image size of the recipe."""
    size = recipe.model.image_size
    if size is None:
        return
    if collator.is_random:
        raise ValueError("model.image_size does not go with random inputs: the teacher would see others")
    side, _ = patch_size(teacher.config)
    if size < side or size % side:
        raise ValueError(f"model.image_size={size}: must be a multiple of the patch size, {side}")
    if is_deepspeed_zero3_enabled():
        raise ValueError("model.image_size does not go with ZeRO-3: choose ZeRO-2 or DDP")


def check_elastic(recipe: Recipe) -> None:
    """Raise `ValueError` if a recipe asks for an elastic student, but has nothing to scale or trains none."""
    factors = recipe.training.elastic
    if factors is None:
        return
    if recipe.schedule is None:
        raise ValueError(
            f"training.elastic={factors}: there is no reduction to scale: give a schedule, or leave it out"
        )
    if recipe.training.max_steps == 0:
        raise ValueError(
            f"training.elastic={factors}: the student is not trained (training.max_steps: 0), and a model that is not "
            "trained runs with any schedule: leave it out"
        )
    try:
        for factor in factors:
            recipe.schedule.scaled(factor)
    except ValueError as error:
        raise ValueError(f"training.elastic={factors}: {error}") from error


def check_method(recipe: Recipe, teacher: PuMerPreTrainedModel, collator: Collator) -> None:
    """Raise `ValueError` if the recipe lacks what its method needs, or asks for what its method cannot do."""
    for args in (recipe.training, recipe.stage("teacher"), recipe.stage("reducer")):
        check_label_smoothing(args, teacher)
    parts = () if recipe.schedule is None else recipe.schedule.parts
    learns = any(reducer_class(part).learns and not reducer_class(part).learns_apart for part in parts)
    if recipe.training.reducer_training is not None and not learns:
        raise ValueError("training.reducer_training is for a method that learns, such as tip")
    if recipe.training.reduction_warmup_steps and learns:
        raise ValueError("training.reduction_warmup_steps is not for a method that learns, which draws what it keeps")
    if recipe.training.reduction_warmup_steps and recipe.schedule is not None:
        recipe.schedule.scaled(1.0)  # finds a part that cannot be scaled
    for part in parts:
        part.check_training(
            image_saliency=collator.image_saliency,
            texts_match=collator.texts_match,
            all_patches=recipe.model.is_decoder or teacher.config.max_patches is None,
        )
