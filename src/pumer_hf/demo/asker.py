"""The work of the page, without the page: ask a model, compare it with an unreduced one, and time both."""

import copy
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from threading import Lock
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor
from transformers import ProcessorMixin

from ..bench.throughput import interleaved_times
from ..data.tasks import task_of_model
from ..explain.counts import LayerCounts, layer_counts
from ..explain.panels import Panel
from ..explain.pictures import strip, trace_panels
from ..explain.prediction import encode, probabilities, scores_add_up
from ..flops import count_flops
from ..images import ImageSource, num_frames
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import load_checkpoint, unreduced_error
from ..reducers import AnyReduction, Schedule, reducer_class
from ..tokens import LayerTrace
from ..unread import unread_words

NOTHING, SAME_WEIGHTS, TEACHER = "nothing", "the same weights, unreduced", "the teacher"
WARMUP, SECONDS = 2, 1.0
MAX_COLUMNS = 4
SMALL = 10_000_000
"""A model with fewer parameters saves time only at large batches. At small ones, most of its time is overhead."""


@dataclass(frozen=True)
class Reply:
    """The answers of the models, and how they came to them."""

    schedule: Schedule
    """The schedule that the reduced model had."""
    answers: dict[str, float]
    """Scores by answer, the highest first ([`Asker.scores_add_up`])."""
    gflops: float
    """The cost of one forward of one example, in 10^9 multiply-adds."""
    full_answers: dict[str, float] | None
    """The answers of the model that it is compared with, if there is one."""
    full_gflops: float | None
    panels: list[Panel]
    """What the model sees, then what each layer left ([`trace_panels`])."""
    traces: tuple[LayerTrace, ...]
    notes: list[str]
    """Sentences that say which parts of the text and the image the model did not read."""

    @property
    def counts(self) -> list[LayerCounts]:
        """What each layer did, in numbers."""
        return layer_counts(self.traces)

    @property
    def picture(self) -> PILImage.Image:
        """The panels as one picture."""
        return strip([self.panels], MAX_COLUMNS)


@dataclass(frozen=True)
class Times:
    """Median times of several runs. The model and the one that it is compared with run in turn."""

    batch_size: int
    runs: int
    seconds: float
    """The time of one forward on a batch of copies of the example."""
    full_seconds: float | None
    """The same time for the other model, if there is one."""


class Asker:
    """A model, and an unreduced one to compare it with.

    Many threads may use it. It serves one at a time, each with the schedule that it gives.
    """

    def __init__(
        self,
        model: PuMerPreTrainedModel,
        processor: ProcessorMixin,
        teacher: tuple[PuMerPreTrainedModel, ProcessorMixin] | None = None,
    ):
        """
        Args:
            model: a model with a reduction, for questions or entailment.
            processor: the processor of the checkpoint.
            teacher: an unreduced model for the same task, and its processor.
        """
        task = task_of_model(model)
        if task is None or task.page_examples is None:
            raise ValueError(
                f"{type(model).__name__}: the page takes models for questions and for entailment; "
                "`pumer-hf explain` takes all"
            )
        if model.reduction is None:
            raise unreduced_error(model)
        for part in model.reduction.parts:
            if reducer_class(part).uses_prior:
                raise ValueError(f"reduction.method={part.method!r} needs a map for each text: choose another method")
        if teacher is not None and list(teacher[0].config.id2label.values()) != list(model.config.id2label.values()):
            raise ValueError("the teacher has other labels than the model: give the one that it was distilled from")
        self.model, self.processor, self.text_label = model, processor, task.text_label
        self.schedule: Schedule = model.reduction
        self.others = {SAME_WEIGHTS: (unreduced_copy(model), processor)}
        if teacher is not None:
            self.others[TEACHER] = teacher
        self._lock = Lock()
        self._waiting: deque[None] = deque()  # one entry per question that waits for the lock

    @classmethod
    def load(cls, checkpoint: str, teacher: str | None = None, **reduction: Any) -> "Asker":
        """Load the models from folders or ids on the Hub. `reduction=` is another schedule than the checkpoint's."""
        return cls(
            *load_checkpoint(checkpoint, **reduction), None if teacher is None else load_checkpoint(teacher, None)
        )

    @property
    def comparisons(self) -> list[str]:
        """What the model can be compared with. The last one is the default."""
        return [NOTHING, *self.others]

    @property
    def scores_add_up(self) -> bool:
        """Whether the scores of the answers are probabilities that sum to one."""
        return scores_add_up(self.model)

    @property
    def batch_sizes(self) -> list[int]:
        """Batch sizes to time. The last one is the default."""
        return [1, 8, 64] if self.model.num_parameters() < SMALL else [8, 1]

    def ask(self, image: ImageSource, text: str, reduction: AnyReduction, compare: str = NOTHING) -> Reply:
        """Answer a text about an image.

        Args:
            image: what [`open_image`] takes, of any size.
            text: a question or a hypothesis.
            reduction: the schedule of the model.
            compare: one of `comparisons`.
        """
        self._waiting.append(None)
        with self._lock:
            self._waiting.pop()
            self.model.set_reduction(reduction)
            inputs = encode(self.model, self.processor, image, text)
            flops, outputs = count_flops(self.model, inputs)
            full_answers, full_flops = None, None
            if compare != NOTHING:
                other, processor = self.others[compare]
                full_flops, full_outputs = count_flops(other, encode(other, processor, image, text))
                full_answers = probabilities(other, full_outputs.logits[0])
            traces = outputs.reduction
            schedule = self.model.reduction
            assert schedule is not None, "the page sets other ratios, but the same methods"
            return Reply(
                schedule=schedule,
                answers=probabilities(self.model, outputs.logits[0]),
                gflops=flops / 1e9,
                full_answers=full_answers,
                full_gflops=None if full_flops is None else full_flops / 1e9,
                panels=trace_panels(self.model, self.processor, inputs, traces)[0],
                traces=traces,
                notes=[*unread_words(self.model, self.processor, text).sentences(), *frames_note(image)],
            )

    @torch.inference_mode()
    def measure(
        self, image: ImageSource, text: str, reduction: AnyReduction, compare: str = NOTHING, batch_size: int = 1
    ) -> Times | None:
        """Time the forward on a batch of copies of the example. The other arguments are those of [`ask`].

        After `WARMUP` runs of each model, the models take turns for about `SECONDS`, and at least five times. A new
        question stops this. Then there are no times, and the method returns None.
        """
        with self._lock:
            self.model.set_reduction(reduction)
            calls = {"model": forward_call(self.model, encode(self.model, self.processor, image, text), batch_size)}
            if compare != NOTHING:
                other, processor = self.others[compare]
                calls["full"] = forward_call(other, encode(other, processor, image, text), batch_size)
            stoppable = {name: self._unless_asked(call) for name, call in calls.items()}
            try:
                times = interleaved_times(stoppable, warmup=WARMUP, seconds=SECONDS)
            except InterruptedError:
                return None
        reduced, full = times["model"], times.get("full")
        return Times(
            batch_size=batch_size,
            runs=len(reduced),
            seconds=median(reduced),
            full_seconds=None if full is None else median(full),
        )

    def _unless_asked(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return the same function, but it raises `InterruptedError` if a question waits."""

        def run() -> None:
            if self._waiting:
                raise InterruptedError
            call()

        return run


def frames_note(image: ImageSource) -> list[str]:
    """Return a sentence if the image has several frames, of which the model sees only the first (animations)."""
    frames = num_frames(image)
    return [f"The image has {frames} frames. The model saw the first."] if frames > 1 else []


def unreduced_copy(model: PuMerPreTrainedModel) -> PuMerPreTrainedModel:
    """Return a copy of the model without reduction. The two models share the memory of their weights."""
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    other = copy.deepcopy(model, shared)
    other.set_reduction(None)
    return other


def forward_call(model: PuMerPreTrainedModel, inputs: dict[str, Tensor], batch_size: int) -> Callable[[], None]:
    """Return a function that runs the model on a batch and waits for the GPU.

    The batch has `batch_size` copies of the only example in `inputs`.
    """
    batch = {name: value.repeat(batch_size, *[1] * (value.ndim - 1)) for name, value in inputs.items()}

    def call() -> None:
        model(**batch)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)

    return call
