"""`ReducedCalls`: the `forward` and the `generate` of a stock decoder model, with fewer image tokens.

At site `"inputs"` both do the same: encode the images, reduce their tokens, cut the prompts, and call transformers'
own method. What a later turn of a chat has to know stands on its cache ([`CutRecord`]).

At site `"layers"` the stock `forward` gets a [`LayerPlan`], by which the hooks on the layers reduce. Each forward that
`generate` makes comes here for it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import ModelOutput

from ...reducers import TokenReducer
from ...reducers.keeping import KeepingConfig
from ..profiling import reduction_region
from .call_checks import check_call, check_labels, check_predicting
from .cut_cache import cache_of
from .evidence import PLAN, show_evidence
from .family import DecoderFamily, cut_inputs, pad_token_of
from .images import ImageTrace, Reduced, reduce_images
from .outputs import with_fields
from .plan import DecoderTokens, LayerPlan
from .prompt import IGNORED, Cut, Placeholders, pads_left
from .running import Prepared, cut_already, generating_with, is_cut, running_of
from .site import SiteTokens, has_images
from .streaming import WholePromptStreamer
from .turns import RECORD, CutRecord, anew, later_turn, next_tokens, refuse_cut

Watch = Callable[[tuple[ImageTrace, ...]], None]


class ReducedCalls:
    """Runs a stock model with fewer image tokens.

    Args:
        family: the family of the model.
        model: the model. If it reduces inside the decoder, its layers have the hooks ([`install_hooks`]).
        reducers: returns what reduces at each site, by its present config. A site without one reduces nothing. It is
            asked at each call.
        watch: what is called with the traces of each call that reduced.
    """

    def __init__(
        self,
        family: DecoderFamily,
        model: PreTrainedModel,
        reducers: Callable[[], Mapping[str, TokenReducer]],
        watch: Watch | None = None,
    ):
        self.family, self.model, self.reducers, self.watch = family, model, reducers, watch

    def forward(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `stock`, the model's own `forward`, with fewer tokens.

        Its output then has `reduction`, the traces, and `labels`, those of the columns that the decoder got.
        """
        if is_cut(self.model):
            return stock(*args, **kwargs)
        if not self.reducers():
            refuse_cut(cache_of(kwargs))
            return stock(*args, **kwargs)
        inputs = named(stock, args, kwargs)
        running = running_of(self.model)
        prepared = self.prepare(inputs, generating=False) if running is None else replace(running, inputs=inputs)
        with reduction_region():
            plan = self._plan(prepared)
        given = prepared.inputs if plan is None else {**prepared.inputs, PLAN: plan}
        given.pop("image_saliency", None)
        with cut_already(self.model):
            outputs = stock(**given)
        if plan is not None and plan.reducer is not None:
            with reduction_region():
                prepared.inside.append(plan.traces(prepared.cut))
        if running is not None:
            return outputs
        self._note(outputs, prepared)
        if not prepared.traces or not isinstance(outputs, ModelOutput):
            return outputs
        return with_fields(outputs, prepared.traces, prepared.inputs.get("labels"))

    def generate(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `stock`, the model's own `generate`, with fewer tokens. Its result begins with the whole prompt."""
        if not self.reducers():
            refuse_cut(cache_of(kwargs))
            return stock(*args, **kwargs)
        inputs = named(stock, args, kwargs)
        prompt = inputs.pop("inputs", None)
        if prompt is not None:
            inputs["input_ids"] = prompt
        if inputs.get("input_ids") is None:
            return stock(**inputs)
        whole = inputs["input_ids"]
        with torch.no_grad():
            prepared = self.prepare(inputs, generating=True)
        given = dict(prepared.inputs)
        given.pop("image_saliency", None)
        if prepared.cut is not None:
            given = self._as_long(given, whole.shape[1] - prepared.cut.index.shape[1])
            if given.get("streamer") is not None:
                given["streamer"] = WholePromptStreamer(given["streamer"], whole)
        with generating_with(self.model, prepared):
            outputs = stock(**given)
        if prepared.cut is not None:
            outputs = self._with_whole_prompt(outputs, whole, prepared.cut)
        self._note(outputs, prepared)
        return outputs

    def _with_whole_prompt(self, outputs: Any, whole: Tensor, cut: Cut) -> Any:
        """Return the result of `generate` with the whole prompts, long (B, L), in the place of the cut ones."""
        sequences = outputs.sequences if isinstance(outputs, ModelOutput) else outputs
        prompts = whole.to(sequences.device).repeat_interleave(len(sequences) // len(whole), dim=0)
        sequences = torch.cat([prompts, sequences[:, cut.index.shape[1] :]], dim=1)
        if not isinstance(outputs, ModelOutput):
            return sequences
        outputs.sequences = sequences
        return outputs

    def prepare(self, inputs: dict[str, Any], generating: bool) -> Prepared:
        """Cut the prompts of a call.

        Args:
            inputs: keyword arguments of the model's own method. They are not changed.
            generating: whether the method is `generate`.

        Raises:
            ValueError: an argument is one with which prompts cannot be cut, or an image and its prompt do not fit.
        """
        length = inputs["input_ids"].shape[1] if inputs.get("input_ids") is not None else 0
        reducer = self.reducers().get("inputs")
        cache: Any = cache_of(inputs)
        if reducer is None:
            refuse_cut(cache)
            maps = self._checked_maps(inputs, generating) if has_images(inputs) else None
            return Prepared(inputs, maps=maps, length=length)
        record: CutRecord | None = getattr(cache, RECORD, None)
        first_word = 0
        if cache is not None and cache.get_seq_length() > 0:
            if generating and self._rereads and has_images(inputs):
                inputs, first_word = anew(inputs, cache, record)
                cache = None
            elif record is not None:
                return self._continued(inputs, record, cache, generating)
        if not has_images(inputs):
            return Prepared(inputs, length=length)
        check_call(self.model, self.reducers(), inputs, generating)
        site = SiteTokens.of(self.family, self.model, inputs, first_word)
        with reduction_region():
            return self._reduced(reducer, site, inputs, generating, cache)

    def _reduced(
        self, reducer: TokenReducer, site: SiteTokens, inputs: Mapping[str, Any], generating: bool, cache: Any
    ) -> Prepared:
        """Cut the prompts of a call whose images are encoded."""
        placeholders, real = site.placeholders, site.real
        given = self._given_maps(inputs, len(site.features))
        reduced = self._reduce(reducer, site, given)
        keep = real.clone()
        keep[placeholders.rows, placeholders.columns] = False
        keep[placeholders.rows[reduced.kept], placeholders.columns[reduced.kept]] = True
        check_labels(inputs.get("labels"), site.is_image)
        cut = Cut.of(keep, pads_left(inputs.get("attention_mask"), default=generating))
        self.family.check(self.model, self._contiguous)
        positions = self.family.positions(self.model, inputs, cut, self._contiguous, generating)
        rest = site.rest_of(inputs)
        shorter = cut_inputs({**rest, "position_ids": None}, cut, pad_token_of(self.model))
        shorter |= {"position_ids": positions, "attention_mask": cut.mask}
        shorter["mm_encoder_outputs"] = {"image": site.images.after(reduced)}
        if cache is not None:
            setattr(cache, RECORD, CutRecord(cut, positions[..., -1:]))
        left = Placeholders(placeholders.rows[reduced.kept], placeholders.columns[reduced.kept], reduced.kept)
        if any(part.config.predicts for part in reducer.parts):
            given = reduced.saliency
        maps = None if given is None else cut.take(dense(reduced.move(given.unsqueeze(1)).squeeze(1), left, real))
        weights = reduced.weight, reduced.gate
        if self.family.no_layers and any(values is not None for values in weights):
            raise ValueError(
                f"reduction.method={reducer.config.method!r}: it learns through the attention of the layers, which "
                f"{self.family.title} does not let: train a scorer apart (`pumer-hf train-scorer`), and freeze it"
            )
        return Prepared(shorter, cut, reduced.traces(placeholders), maps, weights, cut.index.shape[1])

    def _plan(self, prepared: Prepared) -> LayerPlan | None:
        """Return the plan of a forward that reduces inside the decoder; None if it has nothing to reduce there."""
        reducer, inputs = self.reducers().get("layers"), prepared.inputs
        weight, gate = prepared.weights
        if not has_images(inputs) or (reducer is None and weight is None and gate is None):
            return None
        input_ids, mask, labels = inputs["input_ids"], inputs.get("attention_mask"), inputs.get("labels")
        is_image = input_ids == self.family.image_token_id(self.model.config)
        if not bool(is_image.any()):
            return None  # the tokens of an answer, after the prompt
        if isinstance(mask, Mapping) or (mask is not None and mask.ndim != 2):
            raise ValueError("attention_mask: image tokens are reduced inside the decoder if it is a tensor (B, L)")
        show_evidence(self.model)
        check_labels(labels, is_image)
        real = torch.ones_like(is_image) if mask is None else mask[:, -input_ids.shape[1] :].bool()
        is_word = real & ~is_image
        check_predicting(labels, is_image, real)
        is_answer = None if labels is None else labels != IGNORED
        placeholders, maps, copies, seen = Placeholders.in_runs(is_image), prepared.maps, 1, 0
        running = running_of(self.model)
        if running is not None:
            cache = cache_of(inputs)
            seen = 0 if cache is None else cache.get_seq_length()
            is_word[:, max(prepared.length - seen, 0) :] = False  # without a cache, also the answer comes again
            copies = len(input_ids) // len(running.inputs["input_ids"])
            if maps is not None:
                maps = maps.repeat_interleave(copies, dim=0)[:, seen:]
        if maps is not None:
            maps = maps[placeholders.rows, placeholders.columns]
        return LayerPlan(
            reducer, DecoderTokens(placeholders, real, is_word, is_answer, maps, weight, gate, copies, seen)
        )

    def _checked_maps(self, inputs: Mapping[str, Any], generating: bool) -> Tensor | None:
        """Check the inputs of a call that reduces nothing before the decoder. Return its maps, float (B, L)."""
        check_call(self.model, self.reducers(), inputs, generating)
        is_image = inputs["input_ids"] == self.family.image_token_id(self.model.config)
        given = self._given_maps(inputs, int(is_image.sum()))
        return None if given is None else dense(given, Placeholders.in_runs(is_image), is_image)

    @staticmethod
    def _given_maps(inputs: Mapping[str, Any], number: int) -> Tensor | None:
        """Return the input `image_saliency`, float (number,), checked; None if it is not given."""
        maps = inputs.get("image_saliency")
        maps = None if maps is None else maps.flatten()
        if maps is not None and len(maps) != number:
            raise ValueError(
                f"image_saliency: {len(maps)} values, but the images of the prompts have {number} tokens: give one "
                "for each"
            )
        return maps

    @staticmethod
    def _reduce(reducer: TokenReducer, site: SiteTokens, maps: Tensor | None) -> Reduced:
        if reducer.uses_prior and maps is None:
            raise ValueError(
                f"image_saliency: missing: method {reducer.config.method!r} needs a float for each image token, in "
                "the order of the prompts"
            )
        return reduce_images(reducer, site.features, site.placeholders, site.words, maps)

    def _continued(self, inputs: dict[str, Any], record: CutRecord, cache: Any, generating: bool) -> Prepared:
        """Cut the prompts of a later turn, whose beginning the cache holds already."""
        if not generating:
            return Prepared(next_tokens(inputs, record, cache, self._contiguous))
        if self._rereads:
            raise ValueError(
                "pixel_values: missing: with reduction.reread, a later turn reads the images anew: give those of the "
                "whole chat, or set reread to false"
            )
        shorter, cut = later_turn(self.family, self.model, inputs, record, cache)
        return Prepared(shorter, cut, length=cut.index.shape[1])

    @property
    def _contiguous(self) -> bool:
        """Whether the positions after a cut have no gaps."""
        return isinstance(self._config, KeepingConfig) and self._config.positions == "contiguous"

    @property
    def _rereads(self) -> bool:
        """Whether a later turn of a chat reads the whole chat anew."""
        return isinstance(self._config, KeepingConfig) and self._config.reread

    @property
    def _config(self) -> Any:
        """The config of what reduces before the decoder."""
        return self.reducers()["inputs"].config

    def _note(self, outputs: Any, prepared: Prepared) -> None:
        """Give the traces to the output and to whoever watches, and the record to a new cache."""
        if prepared.cut is None and not prepared.inside:
            return
        if self.watch is not None:
            self.watch(prepared.traces)
        if not isinstance(outputs, ModelOutput):
            return
        outputs["reduction"] = prepared.traces
        if prepared.cut is None:
            return
        cache = cache_of(outputs)
        if cache is not None and getattr(cache, RECORD, None) is None:
            times = max(getattr(outputs, "sequences", prepared.cut.index).shape[0] // len(prepared.cut.index), 1)
            last = prepared.inputs["position_ids"][..., -1:].repeat_interleave(times, dim=-2)
            setattr(cache, RECORD, CutRecord(prepared.cut.repeated(times), last))

    def _as_long(self, inputs: dict[str, Any], removed: int) -> dict[str, Any]:
        """Return arguments of `generate` whose lengths, which count the prompt, suit the shorter prompt."""
        config: GenerationConfig = inputs.get("generation_config") or self.model.generation_config
        changed = dict(inputs)
        for name in ("max_length", "min_length"):
            value = inputs.get(name, getattr(config, name, None))
            new = inputs.get(
                name.replace("length", "new_tokens"), getattr(config, name.replace("length", "new_tokens"))
            )
            if name not in inputs and value == getattr(GenerationConfig(), name):
                continue  # the default, which `generate` reads as a number of new tokens
            if value and new is None:
                changed[name] = max(value - removed, 0)
        return changed


def named(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return positional and keyword arguments of a function by name."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def dense(maps: Tensor, placeholders: Placeholders, like: Tensor) -> Tensor:
    """Return values of image tokens, float (N,), at their places in the prompts: float32 in the shape of `like`."""
    places = torch.zeros(like.shape, device=like.device)
    return places.index_put((placeholders.rows, placeholders.columns), maps.to(like.device).float())
