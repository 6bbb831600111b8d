"""Each family with each method computes what the stock model does without the tokens that are gone."""

import inspect
from typing import Any

import pytest
import torch
from models.decoders.oracle import NAMES, NEW, OF_IMAGES, Oracle, kept_columns, ours, stock, with_beams
from models.decoders.tiny import IMAGE, ONE, SIZED, TWO, tiny_inputs

from pumer_hf.models.families import DECODERS

SCHEDULES: dict[str, dict[str, Any]] = {
    "pumer": {"method": "pumer", "keep_ratio": 0.3},
    "pumer_contiguous": {"method": "pumer", "num_keep": 5, "positions": "contiguous", "p": 0.5},
    "pumer_unmerged": {"method": "pumer", "keep_ratio": 0.3, "merge_rest": False, "per_prompt": True},
    "paper": {"method": "pumer", "form": "paper", "prune_ratio": 0.3, "keep_ratio": 0.25},
    "paper_per_prompt": {
        "method": "pumer",
        "form": "paper",
        "prune_ratio": 0.2,
        "keep_ratio": 0.5,
        "per_prompt": True,
        "positions": "contiguous",
    },
    "tome": {"method": "tome", "keep_ratio": 0.3},
    "tome_share": {"method": "tome", "merge_ratio": 0.4, "positions": "contiguous", "per_prompt": True},
    "random": {"method": "random", "keep_ratio": 0.5},
    "random_merged": {"method": "random", "num_keep": 7, "merge_rest": True, "positions": "contiguous"},
    "grounded": {"method": "grounded", "keep_ratio": 0.3, "per_prompt": True},
    "grounded_merged": {"method": "grounded", "prune_ratio": 0.5, "merge_rest": True},
    "grid": {"method": "grid", "keep_ratio": 0.25},
    "grid_merged": {
        "method": "grid",
        "num_keep": 6,
        "merge_rest": True,
        "per_prompt": True,
        "positions": "contiguous",
    },
    "diverse": {"method": "diverse", "keep_ratio": 0.3, "positions": "contiguous"},
    "diverse_merged": {
        "method": "diverse",
        "diversity": "max_min",
        "keep_ratio": 0.4,
        "merge_rest": True,
        "per_prompt": True,
    },
    "relevant_diverse": {"method": "relevant_diverse", "keep_ratio": 0.3},
    "relevant_diverse_merged": {
        "method": "relevant_diverse",
        "diversity": "dpp",
        "keep_ratio": 0.2,
        "merge_rest": True,
        "per_prompt": True,
        "positions": "contiguous",
    },
}
FIRST = [name for name in SCHEDULES if "_" not in name.replace("relevant_diverse", "relevant")]
"""One schedule of each method and form."""
PAIRS = [
    pytest.param(
        family,
        schedule,
        id=f"{family}-{schedule}",
        marks=[] if (place + other) % 3 == 0 else pytest.mark.slow,
    )
    for place, family in enumerate(NAMES)
    for other, schedule in enumerate(SCHEDULES)
]
"""Every family with every schedule. Of these, the quick ones have each schedule in four families or more."""
PROMPTS = [[5, 6, ONE, 7], [8, ONE, 9, 9, TWO, 3], [4, 4]]
"""An image, two images of different sizes, and none."""
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.5},
    "beams": {"do_sample": False, "num_beams": 3},
    "sequences": {"do_sample": True, "num_return_sequences": 2},
    "beam_sequences": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}


def inputs_for(name, schedule, prompts=PROMPTS, **kwargs):
    """Inputs with a map of saliency, if the method asks for one."""
    inputs = tiny_inputs(stock(name), name, prompts, **kwargs)
    if schedule["method"] == "grounded":
        number = int((inputs["input_ids"] == IMAGE).sum())
        inputs["image_saliency"] = torch.rand(number, generator=torch.Generator().manual_seed(3))
    return inputs


def model_for(name, schedule):
    model = ours(name)
    model.set_reduction({"site": "inputs", **schedule})
    return model


def keeping_all(schedule):
    """The same schedule, which keeps all tokens at their places."""
    rest = {key: value for key, value in schedule.items() if key not in ("num_keep", "prune_ratio", "positions")}
    return {**rest, "keep_ratio": 1.0}


def merges(schedule):
    return schedule.get("merge_rest", schedule["method"] in ("pumer", "tome"))


def oracle_for(name, schedule, inputs, traces, **kwargs):
    inputs = {key: value for key, value in inputs.items() if key != "image_saliency"}
    contiguous = schedule.get("positions") == "contiguous"
    return Oracle(name, stock(name), inputs, traces, contiguous=contiguous, merge=merges(schedule), **kwargs)


@pytest.mark.parametrize("schedule", FIRST)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_all_kept_are_the_stock_logits(name, schedule):
    kept = keeping_all(SCHEDULES[schedule])
    inputs = inputs_for(name, kept)
    outputs = model_for(name, kept)(**inputs)
    inputs.pop("image_saliency", None)
    expected = stock(name)(**inputs)
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(outputs.logits[mask], expected.logits[mask], atol=1e-5, rtol=1e-5)
    assert len(outputs.reduction) == 3


@pytest.mark.parametrize("way", [pytest.param(way, marks=with_beams if way.endswith("s") else []) for way in WAYS])
@pytest.mark.parametrize("name", NAMES)
def test_all_kept_give_the_answers_of_the_stock_model(name, way):
    kept = keeping_all(SCHEDULES[FIRST[NAMES.index(name) % len(FIRST)]])
    inputs = inputs_for(name, kept)
    torch.manual_seed(1)
    answers = model_for(name, kept).generate(**inputs, max_new_tokens=NEW, **WAYS[way])
    inputs.pop("image_saliency", None)
    torch.manual_seed(1)
    assert torch.equal(answers, stock(name).generate(**inputs, max_new_tokens=NEW, **WAYS[way]))


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
@torch.no_grad()
def test_reduced_logits_are_those_of_the_stock_model_without_the_dropped_tokens(name, schedule):
    schedule = SCHEDULES[schedule]
    inputs = inputs_for(name, schedule)
    outputs = model_for(name, schedule)(**inputs)
    oracle = oracle_for(name, schedule, inputs, outputs.reduction)
    inputs.pop("image_saliency", None)
    whole = oracle.rows(stock(name)(**inputs).logits)
    reduced = last_of_rows(outputs.logits, oracle.keep)
    for row, expected in zip(reduced, oracle.logits, strict=True):
        torch.testing.assert_close(row, expected, atol=2e-5, rtol=1e-5)
    for row in (0, 1):  # those with images; else this test could not fail
        assert (reduced[row] - whole[row]).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_reduced_answers_are_those_of_the_stock_model_without_the_dropped_tokens(name, schedule):
    schedule = SCHEDULES[schedule]
    inputs = inputs_for(name, schedule)
    outputs = model_for(name, schedule).generate(
        **inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True
    )
    with torch.no_grad():
        expected = oracle_for(name, schedule, inputs, outputs.reduction, generating=True).answer()
    assert torch.equal(outputs.sequences, torch.cat([inputs["input_ids"], expected], dim=1))


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_a_prompt_does_not_depend_on_the_others_of_its_batch(name, schedule):
    schedule = SCHEDULES[schedule]
    prompts = [[5, ONE, 6, 7], [8, ONE, 9, 9, TWO, 3], [4, 4], [8, 7, TWO, 3]]
    inputs = inputs_for(name, schedule, prompts)
    model = model_for(name, schedule)
    given = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    batch = model.generate(**inputs, **given)
    counts = (inputs["input_ids"] == IMAGE).sum(dim=1).tolist()
    maps = inputs.get("image_saliency", torch.zeros(sum(counts))).split(counts)
    for row, prompt in enumerate(prompts):
        alone = inputs_for(name, schedule, [prompt])
        if "image_saliency" in inputs:
            alone["image_saliency"] = maps[row]
            if not len(maps[row]):
                del alone["image_saliency"]
        single = model.generate(**alone, **given)
        for several, one in zip(batch.logits, single.logits, strict=True):
            torch.testing.assert_close(several[row], one[0], atol=1e-4, rtol=1e-4)
        traces = [trace for trace in batch.reduction if trace.row == row]
        padding = int((inputs["attention_mask"][row] == 0).sum())
        for several, one in zip(traces, single.get("reduction", ()), strict=True):
            assert torch.equal(several.kept - padding, one.kept)
            assert torch.equal(several.source, one.source)


@with_beams
@pytest.mark.parametrize("name", NAMES)
def test_beams_of_a_reduced_batch_are_those_of_single_prompts(name):
    schedule = SCHEDULES["pumer"]
    inputs = inputs_for(name, schedule)
    given = {"max_new_tokens": NEW, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    batch = model_for(name, schedule).generate(**inputs, **given)
    assert torch.equal(batch[:, :-NEW], inputs["input_ids"].repeat_interleave(2, dim=0))
    for row, prompt in enumerate(PROMPTS):
        single = ours(name).generate(**inputs_for(name, schedule, [prompt]), **given)
        assert torch.equal(batch[2 * row : 2 * row + 2, -NEW:], single[:, -NEW:])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "smolvlm"))
@torch.no_grad()
def test_traces_say_what_became_of_each_image(name, schedule):
    schedule = SCHEDULES[schedule]
    inputs = inputs_for(name, schedule)
    traces = model_for(name, schedule)(**inputs).reduction
    assert [trace.row for trace in traces] == [0, 1, 1]
    keep = kept_columns(inputs, traces)
    for trace in traces:
        assert (inputs["input_ids"][trace.row, trace.columns] == IMAGE).all()
        assert torch.equal(trace.kept, trace.kept.sort().values)
        places = torch.searchsorted(trace.columns, trace.kept)
        assert torch.equal(trace.columns[places], trace.kept)
        assert torch.equal(trace.source[places], torch.arange(len(trace.kept)))  # each kept token holds itself
        assert torch.equal(trace.holder[places], trace.kept)
        here = trace.source >= 0
        assert torch.equal(trace.kept[trace.source[here]], trace.holder[here])
        held = trace.holder[trace.holder >= 0]
        assert keep[trace.row, held].all()
        if not merges(schedule):
            assert int(here.sum()) == len(trace.kept)
        elif schedule.get("form") != "paper":  # which prunes a share first
            assert (trace.holder >= 0).all()
    amounts = amounts_of(schedule, [[len(traces[0].columns)], [len(trace.columns) for trace in traces[1:]]])
    kept = [len(traces[0].kept), len(traces[1].kept), len(traces[2].kept)]
    assert ([kept[0], kept[1] + kept[2]] if schedule.get("per_prompt") else kept) == amounts


def amounts_of(schedule, lengths):
    """How many tokens stay: of each image, or with `per_prompt` of each prompt."""
    groups = [[sum(prompt)] for prompt in lengths] if schedule.get("per_prompt") else lengths
    amounts = []
    for length in (length for group in groups for length in group):
        if "num_keep" in schedule:
            amounts.append(min(schedule["num_keep"], length))
        elif "keep_ratio" in schedule:
            amounts.append(max(round(schedule["keep_ratio"] * length), 1))
        else:
            share = schedule.get("prune_ratio", schedule.get("merge_ratio"))
            amounts.append(length - round(share * length))
    return amounts


@pytest.mark.parametrize("name", SIZED)
@torch.no_grad()
def test_a_map_decides_what_stays(name):
    schedule = {"method": "grounded", "num_keep": 3}
    inputs = inputs_for(name, schedule, [[5, ONE, TWO, 6]])
    wanted = torch.tensor([1, 7, 20, 40, 41, 50])
    inputs["image_saliency"] = torch.zeros(60).scatter(0, wanted, 1.0)
    traces = model_for(name, schedule)(**inputs).reduction
    columns = (inputs["input_ids"][0] == IMAGE).nonzero().squeeze(1)
    assert torch.equal(torch.cat([trace.kept for trace in traces]), columns[wanted])


@with_beams
@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_of_the_caller_are_not_changed(name):
    schedule = SCHEDULES["pumer"]
    inputs = inputs_for(name, schedule)
    model, before = model_for(name, schedule), {key: value.clone() for key, value in inputs.items()}
    with torch.no_grad():
        encoder = {"image": model.base_model.get_image_features(**of_images(model, inputs), return_dict=True)}
    features = encoder["image"].pooler_output
    copies = [item.clone() for item in features]
    expected = model.generate(**inputs, max_new_tokens=NEW, num_beams=2, do_sample=False)
    rest = {key: value for key, value in inputs.items() if key not in OF_IMAGES or key == "image_grid_thw"}
    answers = model.generate(
        **rest, mm_encoder_outputs=encoder, max_new_tokens=NEW, num_beams=2, do_sample=False
    )  # images that were encoded before
    assert torch.equal(answers, expected)
    assert inputs.keys() == before.keys()
    assert all(torch.equal(inputs[key], value) for key, value in before.items())
    assert encoder["image"].pooler_output is features
    assert len(features) == len(copies)
    assert all(torch.equal(item, copy) for item, copy in zip(features, copies, strict=True))


def of_images(model, inputs):
    names = inspect.signature(model.base_model.get_image_features).parameters
    return {key: inputs[key] for key in names if key in inputs}


def last_of_rows(logits, keep):
    """The logits of what stays of each prompt, from a batch that is padded on the left."""
    return [row[len(row) - int(stays.sum()) :] for row, stays in zip(logits, keep, strict=True)]


def test_every_family_has_a_row():
    assert set(NAMES) == set(DECODERS)
    assert len(NAMES) == 14
