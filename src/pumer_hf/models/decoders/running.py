"""What this thread knows about a call of a decoder model while transformers' own methods run in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from .images import ImageTrace
from .prompt import Cut


@dataclass(frozen=True)
class Prepared:
    """The inputs of transformers' own method, and what became of the images."""

    inputs: dict[str, Any]
    cut: Cut | None = None
    """None if nothing was cut before the decoder."""
    images: tuple[ImageTrace, ...] = ()
    """The traces of the cut before the decoder."""
    maps: Tensor | None = None
    """float (B, L'): the saliency of each image token from outside the decoder; None if there is none."""
    weights: tuple[Tensor | None, Tensor | None] = (None, None)
    """The weight and the gate of each image token, float (N',), with gradients; None for what does not learn."""
    length: int = 0
    """L', the columns of the prompts that the decoder gets."""
    inside: list[tuple[ImageTrace, ...]] = field(default_factory=list)
    """The traces of each forward that has reduced inside the decoder."""

    @property
    def traces(self) -> tuple[ImageTrace, ...]:
        """What became of the images before the decoder, and then inside it."""
        return self.images + (self.inside[0] if self.inside else ())


_CUT: ContextVar[frozenset[int]] = ContextVar("cut", default=frozenset())
"""The models of which transformers' own method runs in this thread, without any reduction by us."""
_RUNNING: ContextVar[Mapping[int, Prepared]] = ContextVar("running", default={})  # noqa: B039 - it is never changed
"""By model, the `generate` that runs in this thread, whose prompts are cut already."""


def is_cut(model: PreTrainedModel) -> bool:
    """Return whether transformers' own method of a model runs in this thread, and nothing of ours is to reduce."""
    return id(model) in _CUT.get()


def running_of(model: PreTrainedModel) -> Prepared | None:
    """Return the `generate` of ours that runs in this thread for a model; None if none does."""
    return _RUNNING.get().get(id(model))


@contextmanager
def cut_already(model: PreTrainedModel) -> Iterator[None]:
    """Say for the time of a `with` block that transformers' own methods of a model run in this thread as they are."""
    token = _CUT.set(_CUT.get() | {id(model)})
    try:
        yield
    finally:
        _CUT.reset(token)


@contextmanager
def generating_with(model: PreTrainedModel, prepared: Prepared) -> Iterator[None]:
    """Say for the time of a `with` block that `generate` runs in this thread, with prompts that are cut already."""
    token = _RUNNING.set({**_RUNNING.get(), id(model): prepared})
    try:
        yield
    finally:
        _RUNNING.reset(token)
