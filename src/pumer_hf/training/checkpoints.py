"""`SavedNames`: a `Trainer` that reads the weights of decoder models back by the names under which they were saved."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer
from transformers.utils import logging

from ..models.encoders.base import PuMerPreTrainedModel

logger = logging.get_logger(__name__)


class SavedNames(Trainer):
    """A Trainer that reads weights back by the names under which `save_pretrained` has saved them.

    Many models with an image tower save their weights under older names. Trainer's own reading expects the names in
    the model. It finds none of them, and goes on with random weights. What DeepSpeed and FSDP save, and adapters, have
    the names of the model.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.accelerator.unwrap_model(self.model if model is None else model)
        if self._reads_itself(target):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_saved(target, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        target = self.accelerator.unwrap_model(self.model)
        if self.is_deepspeed_enabled or self._reads_itself(target):
            super()._load_best_model()
            return
        best = str(self.state.best_model_checkpoint)
        logger.info("Loading best model from %s (score: %s).", best, self.state.best_metric)
        load_saved(target, best)

    def _reads_itself(self, target: Any) -> bool:
        """Whether Trainer's own reading finds the weights."""
        return (
            self.is_fsdp_enabled or isinstance(target, PuMerPreTrainedModel) or not isinstance(target, PreTrainedModel)
        )


def load_saved(model: PreTrainedModel, checkpoint: str) -> None:
    """Load the weights of a checkpoint, which `save_pretrained` has written, into a model of the same class.

    Args:
        model: the model. Its parameters stay the same objects.
        checkpoint: the folder.

    Raises:
        ValueError: the folder is missing, or does not have the same weights, or the model is sharded.
    """
    if not Path(checkpoint).is_dir():
        raise ValueError(f"{checkpoint}: there is no such checkpoint")
    if any(parameter.numel() == 0 for parameter in model.parameters()):
        raise ValueError(
            f"{checkpoint}: a model that ZeRO-3 has sharded cannot read it: launch with one process, without DeepSpeed"
        )
    saved, found = type(model).from_pretrained(checkpoint, dtype=model.dtype, output_loading_info=True)
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(
            f"{checkpoint}: {len(missing)} weights of {type(model).__name__} are missing, such as {missing[0]}: it is "
            "the checkpoint of another model"
        )
    unknown = sorted(saved.state_dict().keys() ^ model.state_dict().keys())
    if unknown:
        raise ValueError(
            f"{checkpoint}: it was saved with another reduction, whose weights differ, such as {unknown[0]}: train "
            "with the reduction of the checkpoint"
        )
    model.load_state_dict(saved.state_dict())
