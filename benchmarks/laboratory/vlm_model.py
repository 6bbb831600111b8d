"""A pretrained decoder model that answers questions with a row's images and schedule, and measures its prefill."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from PIL import Image as PILImage
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from pumer_hf.bench.throughput import interleaved_times, median_ratio
from pumer_hf.data.chat import ChatCollator
from pumer_hf.images import open_image
from pumer_hf.models.decoder_loading import decoder_of_config
from pumer_hf.models.decoders.attached import Traces, attached, reducers_for
from pumer_hf.models.decoders.family import DecoderFamily
from pumer_hf.models.decoders.modeling import ReducedDecoder
from pumer_hf.models.decoders.prompt import input_device, on_device
from pumer_hf.models.loading import naming, saved_config
from pumer_hf.models.reduced import decoder_of
from pumer_hf.recipes.image_use import with_wrong_images
from pumer_hf.reducers import TokenReducer

from .site_rows import UNREDUCED
from .vlm_results import Prefill
from .vlm_rows import GREY, OWN, SMALLER, WRONG, OutOfReachError, VlmRow

GREY_LEVEL = 127
"""The colour of a picture that shows nothing. It is not black, which some models take for padding."""
Reducers = Mapping[str, TokenReducer]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Form:
    """The inputs and the schedule of a row."""

    images: str = OWN
    side: float = 1.0
    """By which part the sides of the images shrink."""
    schedule: tuple[dict[str, Any], ...] = ()


def form_of(row: VlmRow, keep: float | None, scorer: str | None) -> Form:
    """Return the form of a row at a part of the image tokens; None for a baseline."""
    if keep is None:
        return Form(row.images)
    if row.images == SMALLER:
        return Form(SMALLER, math.sqrt(keep))
    return Form(row.images, schedule=tuple(row.schedule(keep, scorer)))


@dataclass(frozen=True)
class VlmModel:
    """A decoder model of transformers' own class, with its processor."""

    model: PreTrainedModel
    processor: ProcessorMixin
    family: DecoderFamily
    batch_size: int
    seconds: float
    """How long a measurement of the prefill takes at least."""

    @classmethod
    def load(cls, source: str, dtype: str, device: str, batch_size: int, seconds: float) -> "VlmModel":
        """Load a model.

        Args:
            source: a folder, or an id on the Hub.
            dtype: its precision, such as `"bfloat16"`, or `"auto"` for that of the checkpoint.
            device: such as `"cuda:0"`, or `"auto"` to spread it over all GPUs.
            batch_size: questions per call.
            seconds: how long to measure a prefill.

        Raises:
            ValueError: there is no such model, or it is of no known family. No weights are read before that is known.
        """
        decoder_of_config(saved_config(source), source)
        with naming(repr(source), source, "model"):
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, device_map=device).eval()
        with naming(repr(source), source, "processor"):
            processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        if not isinstance(processor, ProcessorMixin):
            raise ValueError(f"{source}: it has no processor of images, only a {type(processor).__name__}: add one")
        family, _ = decoder_of(model)
        if isinstance(model, ReducedDecoder):
            model.set_reduction(None)  # a checkpoint of ours may have a schedule
        return cls(model, processor, family, batch_size, seconds)

    @cached_property
    def collator(self) -> ChatCollator:
        """What makes prompts."""
        return ChatCollator(self.processor)

    @property
    def depth(self) -> int:
        """Layers of the decoder."""
        return self.model.config.get_text_config().num_hidden_layers

    def reducers(self, form: Form) -> Reducers:
        """Make what reduces tokens in a form; `{}` if nothing does."""
        return reducers_for(self.family, self.model, list(form.schedule)) if form.schedule else {}

    @contextmanager
    def reduced_by(self, reducers: Reducers) -> Iterator[Traces]:
        """Reduce tokens inside a `with` block. It gives a list that gets the traces."""
        traces: Traces = []
        if not reducers:
            yield traces
            return
        with attached(self.family, self.model, reducers, traces):
            yield traces

    def inputs(self, rows: Rows, form: Form) -> dict[str, Tensor]:
        """Return the inputs of a batch in a form. Those with wrong images have them in their rows already."""
        changed = [{**row, "image": picture_of(row, form)} for row in rows]
        return on_device(self.collator(changed), self.model)

    def batch(self, rows: Dataset, form: Form) -> dict[str, Tensor]:
        """Return the batch whose prefill is measured: the first rows."""
        return self.inputs(list(rows.select(range(min(self.batch_size, len(rows))))), form)

    @torch.inference_mode()
    def answers(
        self, rows: Dataset, places: Sequence[int], form: Form, max_new_tokens: int
    ) -> Iterator[tuple[str, float]]:
        """Yield the answer to each of some rows, generated greedily, and the seconds that it took.

        Args:
            rows: the questions.
            places: which of them.
            form: images and schedule.
            max_new_tokens: the longest answer.
        """
        reducers = self.reducers(form)
        for start in range(0, len(places), self.batch_size):
            inputs = self.inputs([rows[place] for place in places[start : start + self.batch_size]], form)
            begin = time.perf_counter()
            with self.reduced_by(reducers):
                sequences = self.model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    pad_token_id=self.collator.pad_token_id,
                )
            new = sequences[:, inputs["input_ids"].shape[1] :].cpu()  # it waits for the GPU
            seconds = (time.perf_counter() - begin) / len(new)
            for text in self.processor.batch_decode(new, skip_special_tokens=True):
                yield text, seconds

    def prefill(self, inputs: Mapping[str, Tensor], reducers: Reducers) -> Any:
        """Run the image tower, and the decoder up to the first new token."""
        with self.reduced_by(reducers):
            return self.model(**inputs, use_cache=True, logits_to_keep=1)

    @torch.inference_mode()
    def speeds(self, rows: Dataset, forms: Mapping[str, Form]) -> dict[str, Prefill]:
        """Measure the prefill of forms, interleaved with that of the unreduced model.

        Args:
            rows: the questions.
            forms: forms by name.
        """
        whole = self.batch(rows, Form())
        calls: dict[str, Callable[[], Any]] = {UNREDUCED: partial(self.prefill, whole, {})}
        for name, form in forms.items():
            inputs = self.batch(rows, form) if form.images in (GREY, SMALLER) else whole
            calls[name] = partial(self.prefill, inputs, self.reducers(form))
        on_cuda = input_device(self.model).type == "cuda"
        times = interleaved_times(calls, warmup=1, seconds=self.seconds, on_cuda=on_cuda)
        base = times[UNREDUCED]
        return {
            name: Prefill(median_ratio(base, times[name]), median(times[name]), median(base), len(whole["input_ids"]))
            for name in forms
        }

    @torch.inference_mode()
    def tokens(self, rows: Dataset, form: Form) -> tuple[float, float]:
        """Return the image tokens of a prompt, and those that a layer of the decoder runs on in the mean.

        Raises:
            OutOfReachError: the images of the form are smaller, but the processor makes almost as many tokens of them.
        """
        whole, inputs = (self.batch(rows, one) for one in (Form(), form))
        token = self.family.image_token_id(self.model.config)
        before, left = (float((batch["input_ids"] == token).sum()) for batch in (whole, inputs))
        if form.images == SMALLER and left > before * (1 + form.side**2) / 2:
            raise OutOfReachError(f"has {100 * left / before:.0f} % of the tokens")
        with self.reduced_by(self.reducers(form)) as traces:
            if form.schedule:
                self.model(**inputs, logits_to_keep=1)
        after: dict[int | None, float] = {}
        for trace in (trace for call in traces for trace in call):
            after[trace.layer] = after.get(trace.layer, 0.0) + len(trace.kept)
        left, total = after.get(None, left), 0.0
        for layer in range(self.depth):
            total += left
            left = after.get(layer, left)
        return before / len(whole["input_ids"]), total / self.depth / len(whole["input_ids"])


def shown(rows: Dataset, row: VlmRow) -> Dataset:
    """Return the questions with the images of a row of the table, as far as these are images of other questions."""
    return with_wrong_images(rows) if row.images == WRONG else rows


def picture_of(row: Mapping[str, Any], form: Form) -> PILImage.Image:
    """Return the picture of a row as a form shows it."""
    picture = open_image(row["image"], row["origin"])
    if form.images == GREY:
        return PILImage.new("RGB", picture.size, (GREY_LEVEL,) * 3)
    if form.images == SMALLER:
        width, height = (max(round(side * form.side), 1) for side in picture.size)
        return picture.resize((width, height), PILImage.Resampling.BICUBIC)
    return picture
