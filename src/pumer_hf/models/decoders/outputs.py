"""The output of a `forward` with fewer image tokens: that of transformers, with two more fields."""

from dataclasses import field, make_dataclass
from functools import cache
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput


def with_fields(outputs: ModelOutput, reduction: Any, labels: Tensor | None) -> ModelOutput:
    """Return an output that also has `reduction` and `labels`.

    Its class is a subclass of that of the given output. Its fields are declared, as those who take an output apart and
    make it anew, such as `DistributedDataParallel`, call its class with all that it holds.

    Args:
        outputs: the output of transformers' own method.
        reduction: what became of the images.
        labels: long (B, L'), the labels of the columns that stayed, in the order of `logits`; None if there are none.
    """
    kind: Any = type(outputs)
    return _with_fields(kind)(**{**outputs, "reduction": reduction, "labels": labels})


@cache
def _with_fields(kind: Any) -> Any:
    added = [(name, Any, field(default=None)) for name in ("reduction", "labels")]
    return make_dataclass(f"Reduced{kind.__name__}", added, bases=(kind,), namespace={"__module__": __name__})
