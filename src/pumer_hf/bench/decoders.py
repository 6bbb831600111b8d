"""`pumer-hf bench` measures a decoder model with fewer image tokens against itself unreduced."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..figures import duration, figure
from ..models.decoder_loading import asked_schedule, decoder_of_config, load_decoder, random_decoder
from ..models.decoders.family import EARLY
from ..models.decoders.modeling import ReducedDecoder
from ..models.decoders.random_inputs import prompts, text_prompts
from ..models.loading import SAVED, naming, saved_config
from ..reducers import parse_reduction, reducer_class
from ..reducers.pumer import LOOKAHEAD, PuMerReductionConfig
from ..results import Environment, check_results_file, text_table
from .contenders import DTYPES, matmul_precision
from .decoder_measure import (
    DecoderOptions,
    Subject,
    compile_parts,
    measure_break_even,
    measure_sizes,
    measure_speed,
    prefill_memory,
    reducer_cost,
    untouched_by_cuts,
)
from .decoder_report import (
    ANNOUNCED,
    FORMS,
    MEASURED,
    REDUCED,
    UNREDUCED,
    Compared,
    DecoderConditions,
    DecoderReport,
)
from .decoder_shapes import shape_of
from .report import mass_lines

COUNTED_BY = {
    "cpu": "the tensors that were alive at once, which the profiler counts",
    "cuda": "the bytes that torch's allocator had given out at once",
}
"""How the peak memory is counted, by device."""


def bench_decoder(
    source: str,
    options: DecoderOptions,
    *,
    reduction: Any = SAVED,
    random_weights: bool = False,
    output: str | Path | None = None,
) -> list[str]:
    """Measure a decoder checkpoint with and without reduction, interleaved in one run.

    Pixels and words are random, since the cost depends on shapes alone.

    Args:
        source: a folder, or an id on the Hub.
        options: how to measure.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        random_weights: whether to read the `config.json` alone, and to make random weights.
        output: a JSON file for the results.

    Returns:
        Lines to print: first the work and the limit that follows from it, then a table and notes.

    Raises:
        ValueError: the model reduces nothing, or a value is out of range.
        FileNotFoundError: there is no folder for `output`.
    """
    check_results_file(output)
    config = saved_config(source)
    row = decoder_of_config(config, source)
    schedule = asked_schedule(config, reduction, source)
    if random_weights:
        with naming(repr(source), source, "model"):
            loaded = row.config_class.from_pretrained(source)
        model = new_model(row, loaded, schedule, options)
    else:
        model = load_decoder(source, reduction, DTYPES[options.dtype], options.device)
        model.set_attn_implementation(options.attention)
    return bench_decoder_model(model, {"checkpoint": source}, options, random_weights, output)


def bench_shape(
    setting: str, options: DecoderOptions, *, reduction: Any = SAVED, output: str | Path | None = None
) -> list[str]:
    """Measure a published shape with random weights, in the way of [`bench_decoder`].

    Args:
        setting: its name, one of [`SHAPES`].
        options: how to measure.
        reduction: the schedule.
        output: a JSON file for the results.
    """
    check_results_file(output)
    shape = shape_of(setting)
    schedule = asked_schedule({}, reduction, setting)
    model = new_model(shape.row(), shape.new_config(), schedule, options)
    source = {"setting": setting, "shape": shape.title}
    return bench_decoder_model(model, source, options, True, output, image_tokens=shape.image_tokens)


def new_model(row: Any, config: Any, schedule: Any, options: DecoderOptions) -> ReducedDecoder:
    """Make a model with random weights as the options say."""
    return random_decoder(
        row,
        config,
        reduction=schedule,
        dtype=DTYPES[options.dtype],
        device=options.device,
        attention=options.attention,
    )


def bench_decoder_model(
    model: ReducedDecoder,
    source: dict[str, str],
    options: DecoderOptions,
    random_weights: bool,
    output: str | Path | None,
    image_tokens: int | None = None,
) -> list[str]:
    """Measure a decoder model of ours that reduces tokens.

    Args:
        model: the model, on its device, in eval mode.
        source: which model it is, for the results.
        options: how to measure.
        random_weights: whether its weights are random, for the results.
        output: a JSON file for the results.
        image_tokens: image tokens per prompt, unless the options have a number.
    """
    asked = image_tokens if options.image_tokens is None else options.image_tokens
    with matmul_precision(options.matmul_precision):
        report = measured(model, source, options, random_weights, asked)
    return [*work_lines(report), "", text_table(rows(report)), *notes(report), report.finish(output)]


def measured(
    model: ReducedDecoder,
    source: dict[str, str],
    options: DecoderOptions,
    random_weights: bool,
    image_tokens: int | None,
) -> DecoderReport:
    """Do the work of [`bench_decoder_model`]."""
    schedule = model.config.reduction
    assert schedule is not None, "`asked_schedule` has looked"
    inputs = prompts(model, options.batch_size, options.text_length, image_tokens)
    subject = Subject(model, inputs)
    sizes = measure_sizes(subject, text_prompts(model, options.batch_size, options.text_length))
    memory = {form: prefill_memory(subject, form) for form in FORMS} if options.memory else {}
    reducer, untouched = reducer_cost(subject), untouched_by_cuts(subject)
    if options.compile:
        compile_parts(model)
    speed = measure_speed(subject, options, reducer)
    return DecoderReport(
        source=source,
        random_weights=random_weights,
        family=model.family.name,
        reduction=schedule,
        conditions=DecoderConditions(
            device=options.device,
            dtype=str(model.dtype).removeprefix("torch."),
            attention=options.attention,
            matmul_precision=options.matmul_precision,
            compiled=options.compile,
            batch_size=options.batch_size,
            text_length=options.text_length,
            new_tokens=options.new_tokens,
        ),
        image_tokens=sizes.image_tokens,
        work=sizes.work,
        speed=speed,
        cache_bytes=sizes.cache_bytes,
        memory=memory,
        layer_tokens=sizes.layer_tokens,
        weight_bytes=sum(weight.nbytes for weight in model.parameters()),
        mean_image_tokens=sizes.mean_image_tokens,
        environment=Environment.current(),
        break_even=measure_break_even(subject, options, untouched, speed.prefill.ratio),
    )


def work_lines(report: DecoderReport) -> list[str]:
    """Return the lines that stand before any speed: the work, and the limit that follows from it."""
    work = report.work
    shape = f" (the shape of {report.source['shape']})" if "shape" in report.source else ""
    words = report.conditions.text_length
    return [
        f"{report.name}{shape}: {image_tokens_in_words(report)}, and {words} words per prompt",
        f"Multiply-adds of the prefill of a prompt: {figure(work.unreduced)} G, {figure(work.reduced)} G after the "
        f"reduction: {work.ratio:.2f}x fewer",
        f"The image tower needs {figure(work.image_tower)} G of them ({work.tower_share:.0%}), the text alone "
        f"{figure(work.text)} G{first_layers_in_words(report)}: at most {work.limit:.2f}x fewer by cutting image "
        f"tokens {place_in_words(report)}",
        *early_lines(report.reduction),
    ]


def image_tokens_in_words(report: DecoderReport) -> str:
    """Return how many image tokens a prompt has, and how many are left after each cut."""
    tokens, by_layer = report.image_tokens, report.layer_tokens.get(MEASURED, [])
    cuts = [(layer, after) for layer, (before, after) in enumerate(pairwise(by_layer)) if before != after]
    if not cuts:
        return f"{tokens[UNREDUCED]} image tokens, {tokens[REDUCED]} after the reduction"
    before = [f"{tokens[REDUCED]} before the decoder"] if tokens[REDUCED] != tokens[UNREDUCED] else []
    found = [f"{tokens[UNREDUCED]} image tokens", *before, *(f"{after} after layer {layer}" for layer, after in cuts)]
    announced = "as announced" if report.layer_tokens[ANNOUNCED] == by_layer else "not as announced"
    return f"{', '.join(found)} ({announced})"


def first_layers_in_words(report: DecoderReport) -> str:
    """Return the work of the layers before the first cut as a part of a sentence; empty with a cut before them."""
    work = report.work.first_layers
    return f", the image tokens in the layers before the first cut {figure(work)} G" if work else ""


def place_in_words(report: DecoderReport) -> str:
    """Return where the first cut is."""
    return "there" if report.work.first_layers else "before the decoder"


def early_lines(reduction: Any) -> list[str]:
    """Return a warning if a schedule cuts by the attention of the first layers."""
    schedule = parse_reduction(reduction)
    assert schedule is not None, "the model reduces"
    layers = sorted(
        layer
        for part in schedule.parts
        if part.site == "layers" and reducer_class(part).uses_attention
        for layer in part.layers
        if layer < EARLY and not (isinstance(part, PuMerReductionConfig) and part.saliency_at(layer) == LOOKAHEAD)
    )
    if not layers:
        return []
    which = " and ".join(map(str, layers))
    return [
        f"Warning: the schedule cuts by the attention of layer {which}, which says little yet about what the text "
        "asks for: cut after a quarter of the layers or later"
    ]


def rows(report: DecoderReport) -> list[list[str]]:
    """Return the rows of the table."""
    speed, last = report.speed, report.conditions.new_tokens
    found = [["", *FORMS, ""], time_row("prefill", speed.prefill)]
    share = f"{speed.reducer_share:.1%} of the prefill"
    found.append(["  of it the reduction", "", duration(speed.reducer.median), share])
    if speed.first_token is not None:
        found.append(time_row("time to the first token", speed.first_token))
    if speed.per_token is not None:
        per_token = speed.per_token
        rates = [figure(report.conditions.batch_size / one.median) for one in (per_token.unreduced, per_token.reduced)]
        found.append(["tokens/s after it", *rates, times(per_token.ratio)])
    if speed.end_to_end is not None and last > 1:
        found.append(time_row(f"end to end, {last} tokens", speed.end_to_end))
    found.append(["GMACs of the prefill", figure(report.work.unreduced), figure(report.work.reduced), ""])
    found[-1][-1] = f"{report.work.ratio:.2f}x fewer"
    found.append(byte_row("cache after the prefill", report.cache_bytes))
    if report.memory:
        found.append(byte_row("peak memory of the prefill", report.memory))
    return found


def time_row(title: str, compared: Compared) -> list[str]:
    """Return the row of something that was timed."""
    before, after = (duration(one.median) for one in (compared.unreduced, compared.reduced))
    return [title, before, after, times(compared.ratio)]


def times(ratio: float) -> str:
    """Return a ratio of times in words."""
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"


def byte_row(title: str, counts: dict[str, int]) -> list[str]:
    """Return the row of something in bytes."""
    sizes = (f"{figure(counts[form] / 2**20)} MiB" for form in FORMS)
    return [title, *sizes, f"{counts[UNREDUCED] / counts[REDUCED]:.2f}x less"]


def notes(report: DecoderReport) -> Sequence[str]:
    """Return the lines below the table: how it was measured, and how much of the saved work became speed."""
    conditions, prefill = report.conditions, report.speed.prefill
    compiled = "compiled" if conditions.compiled else "not compiled"
    spread = [
        f"{name} {duration(one.fastest)} to {duration(one.slowest)}"
        for name, one in ((UNREDUCED, prefill.unreduced), (REDUCED, prefill.reduced))
    ]
    lines = [
        f"Medians of {prefill.rounds} interleaved rounds ({', '.join(spread)}), batch {conditions.batch_size}, on "
        f"{conditions.device}; {conditions.dtype}, {conditions.attention} attention, {compiled}, matrix products of "
        f"{conditions.matmul_precision} precision.",
        f"The prefill is {prefill.ratio:.2f}x as fast with {report.work.ratio:.2f}x fewer multiply-adds: "
        f"{report.efficiency:.2f} of what they promise.",
        f"Weights: {figure(report.weight_bytes / 2**30)} GiB. Peak memory is beyond weights and inputs, the cache "
        f"included: {COUNTED_BY[conditions.device]}.",
    ]
    lines += mass_lines(report.mean_image_tokens)
    if report.random_weights and report.mean_image_tokens is None:
        lines.append("The weights are random, so a trained model has the same speed.")
    if prefill.ratio < 1:
        lines.append("Reduction does not pay here: there are too few image tokens, or the tower dominates.")
    if report.break_even is not None:
        lines += report.break_even.lines("image tokens")
    return lines
