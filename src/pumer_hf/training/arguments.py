"""`DistillationTrainingArguments`: transformers' `TrainingArguments` and the few fields that distillation adds."""

import os
from dataclasses import dataclass, field

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """
    [`TrainingArguments`] plus the weight of the distillation loss and a learning rate per part of the model. A part
    without a rate of its own uses `learning_rate` (PuMer, Table 5).
    """

    alpha: float = field(default=1.0, metadata={"help": "Weight of the distillation loss, at least 0."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the distillation loss, above 0."})
    shard_teacher: bool = field(
        default=False, metadata={"help": "Shard the teacher over the GPUs too; for ZeRO-3 and FSDP."}
    )
    cross_modal_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the cross-modal layers; default: learning_rate."}
    )
    classifier_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the task head; default: learning_rate."}
    )

    def __post_init__(self) -> None:
        self._refuse_what_has_no_effect()
        super().__post_init__()
        if self.push_to_hub and self.hub_model_id is not None:
            try:
                validate_repo_id(self.hub_model_id)
            except HFValidationError as error:
                raise ValueError(
                    f"hub_model_id={self.hub_model_id!r}: the Hub does not allow this name: {error}"
                ) from error
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # it only speeds up copies to a GPU, and torch warns
        if self.alpha < 0:
            raise ValueError(f"alpha={self.alpha}: must be at least 0")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: must be above 0")
        for name in ("cross_modal_learning_rate", "classifier_learning_rate"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0")

    def _refuse_what_has_no_effect(self) -> None:
        """Raise `ValueError` for an argument of `Trainer` that the loss of [`DistillationTrainer`] ignores."""
        if self.label_names not in (None, ["labels"]):
            raise ValueError(f"label_names={self.label_names}: the labels of a batch are under 'labels'; leave it out")
        if not self.average_tokens_across_devices:
            raise ValueError(
                "average_tokens_across_devices=False: the loss of a step is the mean over its examples or "
                "answer tokens on all devices; leave it out"
            )
        if self.use_liger_kernel:
            raise ValueError(
                "use_liger_kernel=True: its kernels do not compute the logits that are compared with those of the "
                "teacher; leave it out"
            )
        if self.parallelism_config is not None:
            sizes = {name: vars(self.parallelism_config).get(name, 1) for name in ("sp_size", "cp_size")}
            for name, size in sizes.items():
                if size > 1:
                    raise ValueError(
                        f"parallelism_config has {name}={size}: a sequence whose tokens are reduced cannot be split "
                        "over devices; leave it out"
                    )

    def autocast(self) -> torch.autocast:
        """Return the mixed precision of these arguments or of `accelerate launch`, for code outside of a Trainer."""
        precision = "fp16" if self.fp16 else "bf16" if self.bf16 else os.environ.get("ACCELERATE_MIXED_PRECISION")
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=precision in ("fp16", "bf16"))

    def learning_rate_of(self, part: str) -> float:
        """Learning rate of a part of the model: `"backbone"`, `"cross_modal"` or `"classifier"`."""
        rate = {"cross_modal": self.cross_modal_learning_rate, "classifier": self.classifier_learning_rate}.get(part)
        return self.learning_rate if rate is None else rate
