"""`ScorerTrainer`: a `Trainer` that trains the scorer of `lookahead` while the model stays frozen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from ..models.bases import Base, Target, base_of
from ..models.observing import Observation
from ..reducers import parse_method
from ..reducers.lookahead import LookaheadReducer, LookaheadReductionConfig, TargetLayer
from ..tokens import NUM_PREFIX_TOKENS
from .losses import attention_loss
from .placement import place_teacher
from .sinks import IMAGE_GROUP, SINKS, numbers_of_images, without_sinks
from .trainer import batch_size_of, check_devices


@dataclass
class ScorerTrainingArguments(TrainingArguments):
    """[`TrainingArguments`] with other defaults, which suit the scorer of `lookahead`, and those of its second stage.

    Args:
        answer_steps: steps of the second stage, in which the scorer learns to keep the answers ([`AnswersTrainer`]);
            0 for none.
        answer_learning_rate: the highest learning rate in it.
        answer_batch_size: examples per step and process in it.
        target_rows, answer_tokens: whose attention the scorer of a decoder learns to predict, and how many tokens of
            the model's own answer count ([`Target`]).
        sinks: `"remove"` takes out of the attention to predict what does not depend on the text ([`without_sinks`]).
            Batches then come from a [`SameImageCollator`]. `"keep"` takes it as it is.
    """

    learning_rate: float = field(default=2e-3, metadata={"help": "The highest learning rate of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "How the learning rate falls."})
    max_steps: int = field(default=2000, metadata={"help": "Number of steps."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Examples per step and process."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Examples per forward without training."})
    logging_steps: float = field(default=100, metadata={"help": "Steps between two entries of the log."})
    save_steps: float = field(default=500, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep."})
    report_to: str | list[str] | None = field(default="none", metadata={"help": "Reporters to log to."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Our collators read columns by name."})

    answer_steps: int = field(
        default=600, metadata={"help": "Steps of a second stage, in which the scorer learns to keep the answers."}
    )
    answer_learning_rate: float = field(default=1e-3, metadata={"help": "The highest learning rate in this stage."})
    answer_batch_size: int = field(default=32, metadata={"help": "Examples per step and process in this stage."})
    target_rows: str = field(default="question", metadata={"help": "Whose attention a decoder's scorer predicts."})
    answer_tokens: int = field(default=1, metadata={"help": "How many tokens of a decoder's answer count."})
    sinks: str = field(default="keep", metadata={"help": "keep, or remove what does not depend on the text."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer_steps < 0:
            raise ValueError(f"answer_steps={self.answer_steps}: must be at least 0")
        self.target()  # raises an error for a wrong value
        if self.sinks not in SINKS:
            raise ValueError(f"sinks={self.sinks!r}: choose one of {', '.join(SINKS)}")
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # it only speeds up copies to a GPU, and torch warns

    def target(self) -> Target:
        """Return which attention and which answers count."""
        return Target(self.target_rows, self.answer_tokens)

    def for_answers(self) -> "ScorerTrainingArguments":
        """Return the arguments of the second stage. Its checkpoints are in the folder `answers`."""
        changes: dict[str, Any] = {
            "output_dir": str(Path(str(self.output_dir)) / "answers"),
            "max_steps": self.answer_steps,
            "learning_rate": self.answer_learning_rate,
            "per_device_train_batch_size": self.answer_batch_size,
        }
        return replace(self, **changes)


class ScorerTrainer(Trainer):
    """Trains a scorer to predict the attention of one layer. The base model is frozen, and needs no labels.

    The loss is the KL divergence of the softmax of the scores to the attention that the text of an example pays to its
    patches in the target layer ([`attention_loss`]). It is the mean over all examples of a step. The base model runs
    in eval mode without gradients, up to this layer only. What is trained, and saved in checkpoints, is the scorer.

    Args:
        base: an encoder whose reduction has the method `lookahead` ([`add_scorer`]), or a decoder of transformers' own
            class or of ours that has got a scorer. The trainer freezes it, puts it into eval mode, and moves it to its
            device, unless it is quantised or spread over devices.
        target_layer: the layer to predict, or `"all"`; default: `target_layer` of the reduction. [`choose_layer`]
            finds it.

    The other arguments are those of `Trainer`. Batches hold the inputs of the model, with one image for each text of
    an encoder; labels are ignored.

    Raises:
        ValueError: the reduction has no `lookahead`, or no target layer is known.
    """

    # `compute_loss` returns a mean that the Trainer still has to divide by the number of accumulation steps.
    loss_is_scaled_for_ga = False
    args: ScorerTrainingArguments

    def __init__(self, base: nn.Module | Base, *, target_layer: TargetLayer | None = None, **kwargs: Any):
        kwargs.setdefault("args", ScorerTrainingArguments())
        self.base = base_of(base, kwargs["args"].target())
        self.reducer = self.base.lookahead
        config = self.reducer.config
        target_layer = config.target_layer if target_layer is None else target_layer
        if target_layer is None:
            raise ValueError("reduction.target_layer=None: name the layer to predict, choose_layer finds it")
        self.target_layer: TargetLayer = target_layer
        self.base.model.requires_grad_(False).eval()
        super().__init__(self.reducer.scorer.requires_grad_(True), **kwargs)
        check_devices(self.args)
        self.model_accepts_loss_kwargs = False
        self.dtype = self.base.model.dtype
        if self.base.movable:
            place_teacher(self.base.model, self.accelerator, shard=False)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        num_examples = torch.tensor(float(sum(map(batch_size_of, batches))), device=device)
        return batches, self.accelerator.reduce(num_examples, reduction="sum")

    def observe(self, inputs: dict[str, Tensor], layers: Sequence[TargetLayer]) -> Sequence[Observation]:
        """Return what the frozen model sees, and where `layers` attend, for a batch on its device."""
        with self.accelerator.autocast():
            return self.base.observe(inputs, layers, self.reducer.config)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        loss, scores = self.loss_and_scores(model, inputs)
        if model.training and num_items_in_batch is not None:
            # Turn the mean over this batch into its share of the mean over the step. The Trainer divides by the number
            # of accumulation steps, and averages over processes.
            share = batch_size_of(inputs) * self.accelerator.num_processes / num_items_in_batch
            loss = loss * share * self.current_gradient_accumulation_steps
        return (loss, {"scores": scores}) if return_outputs else loss

    def loss_and_scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the mean loss of a batch, and the scores of the scorer `model`, float (B, P) for each number P of
        patches.
        """
        inputs = dict(inputs)
        groups = inputs.pop(IMAGE_GROUP, None)
        seen = self.observe(inputs, [self.target_layer])
        scores = [self.scores(model, one) for one in seen]
        losses = []
        for one, found in zip(seen, scores, strict=True):
            mask = one.pair.image.mask[:, NUM_PREFIX_TOKENS:]
            losses.append(len(mask) * attention_loss(found, self.wanted(one, groups), mask))
        return torch.stack(losses).sum() / sum(map(len, scores)), scores

    def wanted(self, seen: Observation, groups: Tensor | None) -> Tensor:
        """Return the attention that the scores should predict, float (B, P).

        Args:
            seen: what the frozen model sees.
            groups: see [`IMAGE_GROUP`]; None if the batch has none.

        Raises:
            ValueError: sinks are to be removed, and the batch has no groups.
        """
        attention = seen.attention[self.target_layer]
        if self.args.sinks == "keep":
            return attention
        if groups is None:
            raise ValueError(f"sinks='remove': the batch has no {IMAGE_GROUP!r}: make it with a SameImageCollator")
        return without_sinks(attention, numbers_of_images(seen.examples, groups))

    def scores(self, model: nn.Module, seen: Observation) -> Tensor:
        """Return the scores of the patches, float (B, P), of the scorer `model`."""
        text, image = seen.pair.text, seen.pair.image
        dtype = next(self.reducer.scorer.parameters()).dtype
        return model(image.states[:, NUM_PREFIX_TOKENS:].to(dtype), text.states.to(dtype), text.mask)

    @torch.no_grad()
    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the loss of a batch alone. Evaluation reports its mean as `eval_loss`."""
        loss, _ = self.loss_and_scores(model, self._prepare_inputs(inputs))
        return loss, None, None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.reducer.scorer.float()  # the base may have half precision, in which small steps would be lost
        try:
            return super().train(*args, **kwargs)
        finally:
            self.reducer.to(dtype=self.dtype).eval()


def lookahead_of(model: nn.Module) -> LookaheadReducer:
    """Return the module that carries out `lookahead` in a model.

    Raises:
        ValueError: the model does not reduce with this method.
    """
    return base_of(model).lookahead


def add_scorer(model: nn.Module | Base, part: dict[str, Any] | LookaheadReductionConfig) -> LookaheadReducer:
    """Give a loaded model a new scorer, which must then be trained, as its only reduction. Return its module.

    Args:
        model: an encoder, with any head or none, or a decoder. A decoder of transformers' own class stays as it is:
            the scorer stands beside it.
        part: the part of the schedule, with method `lookahead`. Its `weights` are ignored.

    Raises:
        ValueError: the part is wrong, or names a site or a layer that the model does not have.
    """
    config = parse_method(part) if isinstance(part, dict) else part
    if not isinstance(config, LookaheadReductionConfig):
        raise ValueError(f"reduction.method={config.method!r}: only lookahead has a scorer")
    config = replace(config, weights=None)
    base = base_of(model)
    base.check(config)
    reducer = base.host.make_reducer(config)
    assert isinstance(reducer, LookaheadReducer), "the method is lookahead"
    base.put(reducer)
    return base.lookahead
