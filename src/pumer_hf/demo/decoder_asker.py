"""The work of the page for decoders, without the page: ask a model with fewer image tokens, and with all of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Condition, Event, Lock, Thread
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor
from transformers import ProcessorMixin

from ..answering import Answer, ask, check_new_tokens, load_with_processor, methods_of, prompt_inputs, warm_up
from ..explain.decoder_pictures import decoder_panels, joined
from ..explain.panels import Panel
from ..images import ImageSource, open_image
from ..models.decoder_loading import asked_schedule, unreduced
from ..models.decoders.modeling import ReducedDecoder
from ..models.loading import SAVED, saved_config
from ..reducers import METHODS, Schedule, method_class, parse_method, reducer_class
from ..reducers.keeping import POSITIONS, KeepingConfig
from .asker import frames_note

AS_SAVED = "as saved"
"""The choice of the model's own schedule, if it is not one part before the decoder that says what to keep."""
USUAL_RATIO = 0.25
"""Where the slider starts if the model's own schedule has no part to keep."""


@dataclass(frozen=True)
class Question:
    """What a visitor asks."""

    image: ImageSource
    """What [`open_image`] takes, of any size."""
    text: str
    schedule: Schedule
    """How the image tokens are reduced."""
    compare: bool = True
    """Whether the unreduced model answers too."""
    max_new_tokens: int = 64
    """The most tokens of each answer."""


@dataclass(frozen=True)
class Said:
    """What a model has said so far."""

    text: str = ""
    answer: Answer | None = None
    """The whole answer, with its tokens and seconds, when it is complete."""


@dataclass(frozen=True)
class DecoderReply:
    """What has been answered so far."""

    method: str
    """By which method the tokens are reduced."""
    reduced: Said = field(default_factory=Said)
    full: Said | None = None
    """The answer of the unreduced model; None if it is not asked, or not yet."""
    panels: tuple[Panel, ...] = ()
    """What the model sees of the image, and what it kept ([`decoder_panels`]); empty at first."""
    not_drawn: str = ""
    """Why there are no panels."""
    notes: tuple[str, ...] = ()
    """Sentences that say which parts of the image the model did not see."""

    @property
    def picture(self) -> PILImage.Image:
        """The panels as one picture."""
        return joined(self.panels)


class Latest:
    """Hands the latest reply of a thread to another one. What nobody took before the next one came is left out."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._reply: DecoderReply | None = None
        self._error: Exception | None = None
        self._ended = False

    def put(self, reply: DecoderReply) -> None:
        """Give a reply."""
        with self._changed:
            self._reply = reply
            self._changed.notify()

    def end(self, error: Exception | None = None) -> None:
        """Say that no more replies come, and with which error the work ended, if it failed."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def __iter__(self) -> Iterator[DecoderReply]:
        """Yield replies until they end.

        Raises:
            Exception: the error with which the work ended.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._reply is not None or self._ended)
                reply, self._reply = self._reply, None
                error = self._error
            if reply is not None:
                yield reply
            elif error is not None:
                raise error
            else:
                return


class DecoderAsker:
    """A decoder model, which answers with fewer image tokens and with all of them.

    Many threads may use it. It serves one question at a time, each with the schedule that it gives.

    Args:
        model: a model with a reduction.
        processor: the processor of the checkpoint.
    """

    def __init__(self, model: ReducedDecoder, processor: ProcessorMixin):
        assert model.reduction is not None, "`asked_schedule` has looked"
        parts = model.reduction.parts
        for part in parts:
            if reducer_class(part).uses_prior:
                raise ValueError(f"reduction.method={part.method!r} needs a map for each text: choose another method")
        self.model, self.processor, self.saved = model, processor, model.reduction
        self._part = next((part for part in parts if isinstance(part, KeepingConfig)), None)
        self._adjustable = len(parts) == 1 and self._part is not None and self._part.keep_ratio is not None
        self._lock, self._warm = Lock(), False

    @classmethod
    def load(cls, checkpoint: str, teacher: str | None = None, reduction: Any = SAVED) -> "DecoderAsker":
        """Load the model from a folder or an id on the Hub. `reduction` is another schedule than the checkpoint's.

        Raises:
            ValueError: there is a teacher, or no such checkpoint, or it reduces nothing.
        """
        if teacher is not None:
            raise ValueError(f"--teacher {teacher}: a decoder is compared with itself unreduced: leave it out")
        asked_schedule(saved_config(checkpoint), reduction, checkpoint)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(*load_with_processor(checkpoint, reduction, device=device))

    @property
    def methods(self) -> list[str]:
        """The methods to choose from, which work before the decoder. The first one is the model's own schedule."""
        own = self.saved.parts[0].method if self._adjustable else AS_SAVED
        classes = {name: method_class(name, "inputs") for name in METHODS}
        others = [name for name, method in classes.items() if "inputs" in method.config_class.sites]
        free = [name for name in others if not classes[name].uses_prior and not classes[name].learns]
        return [own, *(name for name in free if name != own)]

    @property
    def keep_ratio(self) -> float:
        """The part of the image tokens to keep with which the page begins."""
        ratio = None if self._part is None else self._part.keep_ratio
        return USUAL_RATIO if ratio is None else ratio

    def schedule(self, method: str, keep_ratio: Any) -> Schedule:
        """Return the schedule for a choice on the page.

        Args:
            method: one of `methods`.
            keep_ratio: the part of the image tokens to keep, in (0, 1]. The model's own amount may be another.

        Raises:
            ValueError: there is no such method, or the part is out of range.
        """
        if method not in self.methods:
            raise ValueError(f"method={method!r}: choose one of {', '.join(self.methods)}")
        if method == AS_SAVED:
            return self.saved
        if isinstance(keep_ratio, bool) or not isinstance(keep_ratio, (int, float)) or not 0 < keep_ratio <= 1:
            raise ValueError(f"keep_ratio={keep_ratio}: must be a number in (0, 1]")
        if self._adjustable and method == self.saved.parts[0].method:
            return Schedule((self._with(keep_ratio),))
        positions = POSITIONS[0] if self._part is None else self._part.positions
        part = parse_method({"method": method, "site": "inputs", "keep_ratio": keep_ratio, "positions": positions})
        return Schedule((part,))

    def _with(self, keep_ratio: float) -> KeepingConfig:
        assert self._part is not None, "it is adjustable"
        return replace(self._part, keep_ratio=keep_ratio)

    def ask(self, question: Question) -> Iterator[DecoderReply]:
        """Answer a question about an image, word by word: first with fewer image tokens, then with all.

        The work goes on in a thread of its own. It ends early if nobody wants the rest: if the iterator is closed.

        Yields:
            What has been answered so far. The last one is complete.

        Raises:
            ValueError: the image cannot be read, or the question is wrong for the model.
        """
        check_new_tokens(question.max_new_tokens)
        latest, unwanted = Latest(), Event()

        def work() -> None:
            try:
                self._answer(question, latest.put, unwanted.is_set)
            except InterruptedError:
                latest.end()
            except Exception as error:  # it is raised again in the thread that waits for the answer
                latest.end(error)
            else:
                latest.end()

        Thread(target=work, daemon=True).start()
        try:
            yield from latest
        finally:
            unwanted.set()

    def _answer(self, question: Question, put: Callable[[DecoderReply], None], stops: Callable[[], bool]) -> None:
        """Do the work of [`ask`]. `put` gets the replies, and `stops` says whether nobody wants the rest."""
        picture = open_image(question.image)
        with self._lock:
            self.model.set_reduction(question.schedule)
            inputs = prompt_inputs(self.model, self.processor, picture, question.text)
            if not self._warm:
                warm_up(self.model, self.processor, inputs)
                self._warm = True

            def answered(show: Callable[[Said], None]) -> Said:
                answer = ask(self.model, self.processor, inputs, question.max_new_tokens, Growing(show), stops)
                return Said(answer.text, answer)

            begun = DecoderReply(methods_of(self.model), notes=tuple(frames_note(question.image)))
            reduced = answered(lambda said: put(replace(begun, reduced=said)))
            reply = self._drawn(replace(begun, reduced=reduced), picture, inputs)
            put(reply)
            if question.compare:
                with unreduced(self.model):
                    full = answered(lambda said: put(replace(reply, full=said)))
                put(replace(reply, full=full))

    def _drawn(self, reply: DecoderReply, picture: PILImage.Image, inputs: Mapping[str, Tensor]) -> DecoderReply:
        """Return a reply with pictures of what was kept, or with the reason why there are none."""
        assert reply.reduced.answer is not None, "the reduced model has answered"
        try:
            panels = decoder_panels(self.model, self.processor, picture, inputs, reply.reduced.answer.traces)
        except ValueError as error:  # the page works for families that cannot be drawn, too
            return replace(reply, not_drawn=str(error))
        return replace(reply, panels=tuple(panels))


class Growing:
    """Collects the words of an answer, and shows all so far each time that some are added.

    Args:
        show: is called with what has been said so far.
    """

    def __init__(self, show: Callable[[Said], None]):
        self.show, self.text = show, ""
        show(Said())

    def __call__(self, words: str, last: bool) -> None:
        self.text += words
        self.show(Said(self.text))
