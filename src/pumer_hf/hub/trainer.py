"""`HubTrainer` is a `Trainer` that writes a model card, and pushes only the files that a user of the model needs."""

import inspect
import shutil
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress, logging

from ..bench.cost import measure_sizes
from ..data.tasks import task_of_model
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.reducible import reducible_model
from ..results import Environment, Evaluation, MetricType, Report
from .card import PuMerCard
from .decoders import row_of
from .files import published_files
from .push import clear_errors, push_folder

logger = logging.get_logger(__name__)

TRAINING_FIELDS = (
    "learning_rate",
    "cross_modal_learning_rate",
    "classifier_learning_rate",
    "alpha",
    "temperature",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "reduction_warmup_steps",
    "elastic",
    "early_stopping_patience",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "bf16",
    "fp16",
    "seed",
)
ALWAYS = ("learning_rate", "alpha", "per_device_train_batch_size", "lr_scheduler_type", "seed")
TIMES = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def training_facts(args: TrainingArguments) -> dict[str, Any]:
    """Return the training arguments that influence the result, if they differ from the defaults.

    Those in `ALWAYS` are always among them, and so is the length: `max_steps` or the epochs.
    """
    facts = {}
    for name in TRAINING_FIELDS:
        value = getattr(args, name, None)
        default = type(args).__dataclass_fields__[name].default if value is not None else None
        if value is not None and (name in ALWAYS or value != default):
            facts[name] = getattr(value, "value", value)  # an enum has its name in `value`
    if args.max_steps > 0:
        facts.pop("num_train_epochs", None)
    else:
        facts["num_train_epochs"] = args.num_train_epochs
    return facts


class ModelCardCallback(TrainerCallback):
    """The callback that writes the arguments, metrics, versions and hardware into `trainer.card` during training.

    It cannot know everything. Set the other fields yourself: `trainer.card.dataset = {"name": ..., "id": ...}`.
    """

    def __init__(self, trainer: "HubTrainer"):
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.card.training = training_facts(args)
        self.trainer.card.report = replace(self.trainer.card.report, environment=Environment.current())

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        found = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items() if name != "epoch"}
        scored = {name: metric_type(name).of(float(value)) for name, value in found.items() if name not in TIMES}
        if scored:
            card = self.trainer.card
            card.report = replace(card.report, evaluations={**card.report.evaluations, card.role: Evaluation(scored)})


def metric_type(name: str) -> MetricType:
    """Return the type of a metric from any `compute_metrics`, whose unit is unknown.

    Lower is better if the name ends in "loss", as in transformers' `greater_is_better`.
    """
    return MetricType("", higher_is_better=not name.endswith("loss"))


class HubTrainer(Trainer):
    """A [`Trainer`] whose `push_to_hub` writes our card and pushes it with config, weights, processor and remote code.

    Optimizer states, checkpoints and pickles are not pushed, unless `hub_strategy` is `"checkpoint"` or
    `"all_checkpoints"`. Then they have a folder of their own in the repository.
    """

    hub_model_id: str | None
    push_in_progress: PushInProgress | None

    def __init__(self, model: Any = None, **kwargs: Any):
        super().__init__(model, **kwargs)
        self.add_callback(ModelCardCallback(self))

    @cached_property
    def card(self) -> PuMerCard:
        """The model card of this run. You can set its fields until it is written."""
        model = reducible_model(self.model)
        config, source = model.config, model.name_or_path
        task = task_of_model(model) if isinstance(model, PuMerPreTrainedModel) else None
        return PuMerCard(
            name=Path(self.args.hub_model_id or self.args.output_dir).name,
            backbone=row_of(config.to_dict(), "model.config").name,
            task=None if task is None else task.name,
            role="teacher" if config.schedule is None else "student",
            base_model=source or None,
            reduction=config.reduction,
        )

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository if it does not exist, and set `hub_model_id` to its full name.

        The method of the base class takes `private` only since transformers 5.23, so this one does not call it.

        Args:
            token: default: `args.hub_token`.
            private: whether a new repository is private; default: `args.hub_private_repo`.

        Raises:
            ValueError: there is no processor.
            PushError: the Hub refused or failed.
        """
        if self.processing_class is None:
            raise ValueError("processing_class is None: without a processor nobody can use the model on the Hub")
        if not self.is_world_process_zero():
            return
        name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        token = token if token is not None else self.args.hub_token
        private = private if private is not None else self.args.hub_private_repo
        with clear_errors(name):
            self.hub_model_id = HfApi(token=token).create_repo(name, private=private, exist_ok=True).repo_id
        self.push_in_progress = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.processing_class is None and self.args.should_save:
            logger.warning_once(
                "processing_class is None, so the trainer saves no processor, and neither pumer-hf nor a pipeline can "
                "load the folder: give the trainer processing_class=..., or add the processor to the folder with "
                "`processor.save_pretrained(FOLDER)`"
            )

    def create_model_card(self, **facts: Any) -> None:
        """Write the card into `args.output_dir`.

        Args:
            **facts: fields of [`PuMerCard`] to set before the card is written.
        """
        if not self.is_world_process_zero():
            return
        for name, value in facts.items():
            if name not in PuMerCard.__dataclass_fields__:
                raise ValueError(f"unknown field {name!r} of the model card: see PuMerCard")
            setattr(self.card, name, value)
        if self.args.world_size == 1 and not isinstance(self.train_dataset, (IterableDataset, NoneType)):
            self.card.report = self._with_example()
        self.card.repo_id = self.hub_model_id or self.card.repo_id
        self.card.save(self.args.output_dir)

    def _with_example(self) -> Report:
        """Return the report with the size of the first training example: its GFLOPs, of an encoder also its tokens."""
        batch = self._prepare_inputs(self.data_collator([self.train_dataset[0]]))
        model = reducible_model(self.model)
        names = set(inspect.signature(model.forward).parameters) - {"labels"}
        example = {name: value for name, value in batch.items() if name in names}
        role, report = self.card.role, self.card.report
        found = measure_sizes({role: model}, {role: example})
        sizes = {name: getattr(found, name) for name in ("gflops", "tokens_per_layer", "tokens_in")}
        return replace(report, cost=replace(report.cost, **sizes))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **facts: Any,
    ) -> CommitInfo | Any:
        """Save the model and the card in `args.output_dir`, and push them in one commit.

        Args:
            commit_message: first line of the commit.
            blocking: whether to wait for the push. If False, the method returns a `Future` at once.
            token: default: `args.hub_token`, then the token of `hf auth login`.
            revision: a branch; default: `args.hub_revision`, then `main`.
            private: whether a new repository is private; default: `args.hub_private_repo`.
            **facts: fields of [`PuMerCard`] to set before the card is written.

        Returns:
            The commit, on the main process.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**facts)
        self._finish_current_push()
        arguments: dict[str, Any] = {
            "private": private if private is not None else self.args.hub_private_repo,
            "revision": revision if revision is not None else self.args.hub_revision,
            "commit_message": commit_message or "End of training",
            "token": token,
        }
        folder, repo_id = str(self.args.output_dir), str(self.hub_model_id)
        if blocking:
            return push_folder(folder, repo_id, **arguments)
        return HfApi().run_as_future(push_folder, folder, repo_id, **arguments)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the model of a checkpoint in the background.

        A copy is pushed, because the trainer may delete the checkpoint during the push.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self.push_in_progress is not None and not self.push_in_progress.is_done() and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        staged = self._stage(checkpoint_folder)
        jobs: list[Any] = [HfApi().run_as_future(self._push_and_remove, staged, message)]
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = self.args.hub_strategy == HubStrategy.CHECKPOINT
            api = HfApi(token=self.args.hub_token)
            jobs.append(
                api.upload_folder(
                    repo_id=str(self.hub_model_id),
                    folder_path=checkpoint_folder,
                    path_in_repo="last-checkpoint" if last else Path(checkpoint_folder).name,
                    commit_message=f"{message}, checkpoint",
                    run_as_future=True,
                    revision=self.args.hub_revision,
                )
            )
        if self.push_in_progress is None or self.push_in_progress.is_done():
            self._report_failures()
            self.push_in_progress = PushInProgress(jobs)
        else:
            self.push_in_progress.jobs.extend(jobs)

    def _stage(self, checkpoint_folder: str) -> Path:
        """Copy the files of a checkpoint that are to be pushed into a new folder, and return the folder."""
        staged = Path(tempfile.mkdtemp(prefix="pumer-push-"))
        for name, content in published_files(checkpoint_folder, str(self.hub_model_id)).published.items():
            if isinstance(content, bytes):
                (staged / name).write_bytes(content)
            else:
                shutil.copyfile(content, staged / name)
        self.card.repo_id = self.hub_model_id
        self.card.save(staged)
        return staged

    def _push_and_remove(self, folder: Path, message: str) -> CommitInfo:
        try:
            return push_folder(
                folder,
                str(self.hub_model_id),
                revision=self.args.hub_revision,
                commit_message=message,
                token=self.args.hub_token,
            )
        finally:
            shutil.rmtree(folder)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        self._report_failures()
        self.push_in_progress = None

    def _report_failures(self) -> None:
        """Warn about the pushes that have failed in the background."""
        in_progress = getattr(self, "push_in_progress", None)
        for job in in_progress.jobs if in_progress else ():
            if job.done() and job.exception() is not None:
                logger.warning("a push during training failed; a later push replaces it: %s", job.exception())
