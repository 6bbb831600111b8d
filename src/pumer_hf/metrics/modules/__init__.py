"""The metrics as modules for `evaluate`. Each is one file, which `evaluate.load` loads by its path, offline."""

from pathlib import Path
from typing import Any

from ...release import extra_command

NAMES = ("vqa_accuracy", "nlvr2", "retrieval_recall", "accuracy")


def metric_path(name: str) -> str:
    """Return the path of a metric in `NAMES`, for `evaluate.load` and `evaluate.combine`."""
    if name not in NAMES:
        raise ValueError(f"name={name!r}: choose one of {list(NAMES)}")
    return str(Path(__file__).with_name(f"{name}.py"))


def load_metric(name: str, **kwargs: Any) -> Any:
    """Load a metric in `NAMES` as an `evaluate.EvaluationModule`. `kwargs` are those of `evaluate.load`."""
    try:
        import evaluate
    except ImportError as error:
        raise ImportError(f"metrics as modules need evaluate: {extra_command('evaluate')}") from error
    return evaluate.load(metric_path(name), **kwargs)
