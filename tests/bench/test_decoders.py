"""`pumer-hf bench` for decoder models."""

import json
import time
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from models.decoders.tiny import CONFIGS, tiny_model
from transformers import initialization

from pumer_hf.bench import decoders
from pumer_hf.bench.decoder_measure import (
    ATTENTIONS,
    Clock,
    DecoderOptions,
    Subject,
    generate_times,
    measure_sizes,
    nbytes,
    reducer_cost,
)
from pumer_hf.bench.decoder_report import Compared, DecoderReport, Seconds, Work
from pumer_hf.bench.decoder_shapes import SHAPES, Shape, shape_of
from pumer_hf.bench.decoders import bench_decoder, bench_decoder_model, early_lines, rows
from pumer_hf.bench.profiles import reduction_seconds
from pumer_hf.cli import main
from pumer_hf.models.decoder_loading import DRAWN, fill_at_random, load_decoder, random_decoder, unreduced
from pumer_hf.models.decoders.cut_cache import CutLayer, cache_of
from pumer_hf.models.decoders.random_inputs import grid_of, prompts, text_prompts
from pumer_hf.models.families import DECODERS
from pumer_hf_cli import choices

SCHEDULE = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
FULL = DecoderOptions(batch_size=2, seconds=0.01, new_tokens=3, text_length=5)
QUICK = replace(FULL, new_tokens=0, memory=False)
INSIDE = {"method": "pumer", "layers": [0, 1], "prune_ratio": 0.3, "image_merge_ratio": 0.2}
LATE = {"method": "random", "layers": [1], "prune_ratio": 0.5}
SIZED = [name for name in CONFIGS if name.startswith("qwen") or name == "gemma4"]


def small(name, reduction=SCHEDULE):
    row = DECODERS[name]
    return random_decoder(row, row.config_class(**deepcopy(CONFIGS[name])), reduction=reduction)


def num_images(model, inputs):
    return (inputs["input_ids"] == model.family.image_token_id(model.config)).sum(dim=1).tolist()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "out.json"
    lines = bench_decoder_model(small("llava"), {"setting": "small"}, FULL, True, path)
    return SimpleNamespace(lines=lines, path=path, values=json.loads(path.read_text()))


@pytest.mark.parametrize("name", CONFIGS)
def test_prompts_of_every_family(name):
    """The images fit the model, and it runs with them, without them and reduced."""
    model = small(name)
    asked = 24 if name in SIZED else None
    one = prompts(model, 1, 4, asked)
    both = prompts(model, 2, 4, asked)
    (number,) = num_images(model, one)
    assert num_images(model, both) == [number] * 2
    assert both["input_ids"].shape == (2, number + 4)
    with torch.inference_mode():
        alone, batch = (model(**inputs, logits_to_keep=1) for inputs in (one, both))
        text = model(**text_prompts(model, 1, 4), logits_to_keep=1).logits
    assert all(len(trace.kept) == round(len(trace.columns) / 4) for trace in batch.reduction)
    assert sum(len(trace.columns) for trace in batch.reduction) == 2 * number
    torch.testing.assert_close(batch.logits[:1], alone.logits, atol=1e-5, rtol=1e-4)
    assert text.isfinite().all()


@pytest.mark.parametrize("name", SIZED)
def test_images_of_any_size_have_as_many_tokens_as_asked(name):
    model = small(name)
    assert num_images(model, prompts(model, 1, 4, 24)) == [24]
    with pytest.raises(ValueError, match="image_tokens=29.* 25"):
        prompts(model, 1, 4, 29)


@pytest.mark.parametrize("name", ["llava", "internvl", "gemma3", "paligemma", "smolvlm"])
def test_images_of_one_size_are_repeated(name):
    model = small(name)
    assert num_images(model, prompts(model, 2, 4, 72)) == [72, 72]
    with pytest.raises(ValueError, match="image_tokens=50.* 36"):
        prompts(model, 1, 4, 50)


def test_tiles_come_near_the_number_that_is_asked_for():
    model = small("llava_next")
    (usual,), (fewer,) = num_images(model, prompts(model, 1, 4)), num_images(model, prompts(model, 1, 4, 114))
    assert (usual, fewer) == (192, 114)


@pytest.mark.parametrize(("tokens", "grid"), [(1, (1, 1)), (1296, (36, 36)), (72, (8, 9)), (97, (9, 10))])
def test_a_grid_is_nearly_square(tokens, grid):
    assert grid_of(tokens) == grid


@pytest.mark.parametrize("field", ["text_length", "image_tokens", "batch_size"])
def test_prompts_have_at_least_one_of_all(field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        prompts(small("llava"), **{"batch_size": 1, "text_length": 1, field: 0})


def test_work_is_counted_from_the_run():
    """The decoder's part is linear in the tokens but for attention, so the counts can be foreseen."""
    model = small("llava")
    inputs, text = prompts(model, 2, 5), text_prompts(model, 2, 5)
    sizes = measure_sizes(Subject(model, inputs), text)
    work = sizes.work
    assert sizes.image_tokens == {"unreduced": 36, "reduced": 9}
    assert sizes.cache_bytes == {"unreduced": 2 * 41 * 3 * 2 * 16 * 4, "reduced": 2 * 14 * 3 * 2 * 16 * 4}
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48  # q and o, k and v, the three of the MLP

    def decoder(length):
        return 3 * (length * layer + 2 * length**2 * 32) + 32 * 100

    # in transformers 5.18 the rotary angles are products that count too
    assert (work.unreduced - work.image_tower) * 1e9 == pytest.approx(decoder(41), rel=1e-4)
    assert work.text * 1e9 == pytest.approx(decoder(5), rel=1e-4)
    reducer = (work.reduced - work.image_tower) * 1e9 - decoder(14)
    assert 0 < reducer < decoder(14) / 2


@pytest.mark.parametrize(
    ("reduction", "lengths"), [(INSIDE, [36, 18, 9]), ([SCHEDULE, LATE], [9, 9, 5]), (SCHEDULE, [9, 9, 9])]
)
def test_tokens_are_those_that_each_layer_reads(reduction, lengths):
    """Announced, measured, and held by the cache. The decoder's work is that of so many tokens."""
    model = small("llava", reduction)
    subject = Subject(model, prompts(model, 2, 5))
    sizes = measure_sizes(subject, text_prompts(model, 2, 5))
    assert sizes.layer_tokens == {"announced": lengths, "measured": lengths}
    assert sizes.image_tokens == {"unreduced": 36, "reduced": lengths[0]}
    with torch.inference_mode():
        layers = cache_of(subject.prefill("reduced")).layers
    assert [layer.keys.shape[2] - 5 for layer in layers] == lengths
    held = sum(2 * 2 * (length + 5) * 16 * 4 for length in lengths)
    columns = sum(2 * (length + 5) * 8 for layer, length in zip(layers, lengths, strict=True) if is_cut(layer))
    assert sizes.cache_bytes["reduced"] == held + columns
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48
    decoder = sum((length + 5) * layer + 2 * (length + 5) ** 2 * 32 for length in lengths) + 32 * 100
    assert 0 < (sizes.work.reduced - sizes.work.image_tower) * 1e9 - decoder < decoder / 2


def is_cut(layer):
    return isinstance(layer, CutLayer)


def test_the_limit_follows_from_what_no_cut_reaches():
    work = Work(unreduced=10.0, reduced=5.0, image_tower=1.5, text=0.5)
    assert (work.ratio, work.tower_share, work.limit) == (2.0, 0.15, 5.0)
    assert replace(work, first_layers=2.0).limit == 2.5


def test_layers_before_the_first_cut_are_out_of_reach():
    model = small("llava", LATE)
    work = measure_sizes(Subject(model, prompts(model, 2, 5)), text_prompts(model, 2, 5)).work
    assert work.first_layers == pytest.approx((work.unreduced - work.image_tower - work.text) * 2 / 3)
    model.set_reduction({**LATE, "prune_ratio": 0.99})
    fewest = measure_sizes(Subject(model, prompts(model, 2, 5)), text_prompts(model, 2, 5)).work
    assert fewest.ratio < work.limit < 1.05 * fewest.ratio


@pytest.mark.parametrize("reduction", [SCHEDULE, LATE, [SCHEDULE, LATE]])
def test_the_reduction_is_timed_and_not_what_runs_beside_it(reduction):
    model = small("llava", reduction)
    subject = Subject(model, prompts(model, 2, 5))

    def wait(*_):
        time.sleep(0.05)

    parts = model.token_reduction.part_reducers
    for module in (model.get_encoder(modality="image"), model.get_decoder(), *parts):
        module.register_forward_hook(wait)
    own, whole = reduction_seconds(lambda: subject.prefill("reduced"), model.device)
    assert own > 0.05 * len(parts)
    assert whole - own > 0.05 * 2
    with unreduced(model):
        assert reducer_cost(subject) == (Seconds(0.0, 0.0, 0.0), 0.0)


def test_a_report_of_a_cut_inside(tmp_path):
    lines = bench_decoder_model(small("llava", INSIDE), {"setting": "small"}, QUICK, True, tmp_path / "out.json")
    assert "36 image tokens, 18 after layer 0, 9 after layer 1 (as announced)" in lines[0]
    assert "in the layers before the first cut" in lines[2]
    loaded = DecoderReport.load(tmp_path / "out.json")
    assert loaded.layer_tokens["measured"] == [36, 18, 9]
    assert loaded.work.limit == loaded.to_dict()["gmacs"]["limit"] < loaded.work.unreduced / loaded.work.image_tower
    old = {name: value for name, value in loaded.to_dict().items() if name != "layer_tokens"}
    del old["gmacs"]["first_layers"]
    assert DecoderReport.from_dict(old).work.first_layers == 0


PUMER_LATE = {**INSIDE, "layers": [2]}
LOOKS_AHEAD = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.5}


@pytest.mark.parametrize(
    ("reduction", "named"),
    [
        (INSIDE, "layer 0 and 1,"),
        ({"method": "fastv", "layers": [1]}, "layer 1,"),
        ([SCHEDULE, {"method": "pyramid", "layers": [1, 4]}], "layer 1,"),
        (PUMER_LATE, None),
        (LATE, None),
        (SCHEDULE, None),
        ([LOOKS_AHEAD, {**INSIDE, "saliency": "lookahead"}], None),
    ],
)
def test_a_schedule_that_trusts_the_first_layers_is_warned_of(reduction, named):
    lines = early_lines(reduction)
    assert [named in line for line in lines] == ([] if named is None else [True])


def test_the_report_has_all_and_can_be_read_again(report):
    values = report.values
    assert values["image_tokens"] == {"unreduced": 36, "reduced": 9}
    assert values["gmacs"]["ratio"] > 1
    assert values["gmacs"]["limit"] > values["gmacs"]["ratio"]
    for part in ("prefill", "first_token", "end_to_end", "per_token"):
        assert values["seconds"][part]["reduced"]["median"] > 0
    assert 0 < values["seconds"]["reducer_share"] < 1
    assert values["efficiency"] == pytest.approx(values["seconds"]["prefill"]["ratio"] / values["gmacs"]["ratio"])
    assert values["memory"]["unreduced"] > 0
    assert values["conditions"]["batch_size"] == 2
    assert values["versions"]["torch"] == torch.__version__
    assert DecoderReport.load(report.path).to_dict() == values


def test_the_limit_stands_before_any_speed(report):
    text = "\n".join(report.lines)
    assert "36 image tokens, 9 after the reduction" in report.lines[0]
    assert text.index("at most") < text.index("prefill  ") < text.index("tokens/s")
    titles = [row[0].strip() for row in rows(DecoderReport.load(report.path))[1:]]
    assert titles == [
        "prefill",
        "of it the reduction",
        "time to the first token",
        "tokens/s after it",
        "end to end, 3 tokens",
        "GMACs of the prefill",
        "cache after the prefill",
        "peak memory of the prefill",
    ]


def test_the_prefill_alone(tmp_path):
    options = DecoderOptions(seconds=0.01, new_tokens=0, memory=False, attention="eager")
    model = random_decoder(
        DECODERS["llava"], DECODERS["llava"].config_class(**deepcopy(CONFIGS["llava"])), reduction=SCHEDULE
    )
    bench_decoder_model(model, {"setting": "small"}, options, True, tmp_path / "out.json")
    loaded = DecoderReport.load(tmp_path / "out.json")
    assert loaded.speed.end_to_end is None
    assert loaded.memory == {}
    assert DecoderReport.from_dict(loaded.to_dict()) == loaded


def test_times_are_compared_round_by_round():
    compared = Compared.of({"unreduced": [4.0, 10.0, 6.0], "reduced": [2.0, 1.0, 3.0]})
    assert (compared.rounds, compared.ratio) == (3, 2.0)
    assert (compared.unreduced.median, compared.reduced.fastest, compared.reduced.slowest) == (6.0, 1.0, 3.0)


def test_each_new_token_is_timed():
    model = small("llava")
    subject = Subject(model, prompts(model, 2, 5))
    for form in ("unreduced", "reduced"):
        seconds = generate_times(subject, form, 4)
        assert len(seconds) == 4
        assert seconds == sorted(seconds)
    clock = Clock()
    clock.put(torch.zeros(1, 3))
    assert clock.seconds == []


def test_bytes_are_those_of_all_tensors():
    assert nbytes([torch.zeros(3), None, {0: torch.zeros(2, dtype=torch.int64)}, 7]) == 12 + 16


@pytest.mark.parametrize("stock", [True, False])
def test_a_checkpoint(stock, tmp_path):
    """A checkpoint of the stock class and one of ours, with weights and with its config alone."""
    folder = str(tmp_path / "model")
    tiny_model("llava", ours=not stock, reduction=None if stock else SCHEDULE).save_pretrained(folder)
    given = {"reduction": SCHEDULE} if stock else {}
    for random_weights in (False, True):
        bench_decoder(folder, QUICK, random_weights=random_weights, output=tmp_path / "out.json", **given)
        loaded = DecoderReport.load(tmp_path / "out.json")
        assert (loaded.source, loaded.random_weights) == ({"checkpoint": folder}, random_weights)
        assert loaded.image_tokens == {"unreduced": 36, "reduced": 9}
        assert loaded.reduction["method"] == "pumer"


def test_random_weights_need_no_file_of_weights(tmp_path):
    tiny_model("llava").config.save_pretrained(tmp_path)
    lines = bench_decoder(str(tmp_path), QUICK, reduction=SCHEDULE, random_weights=True)
    assert any("random" in line for line in lines)


def test_our_class_has_the_stock_weights_and_is_stock_when_unreduced(tmp_path):
    stock = tiny_model("llava")
    stock.save_pretrained(tmp_path)
    model = load_decoder(str(tmp_path), SCHEDULE)
    inputs = prompts(model, 1, 5)
    with torch.inference_mode():
        with unreduced(model):
            whole = model(**inputs).logits
        torch.testing.assert_close(whole, stock(**inputs).logits)
        assert model(**inputs).logits.shape[1] < whole.shape[1]


def test_tied_weights_are_one():
    row = DECODERS["llava"]
    config = row.config_class(**deepcopy(CONFIGS["llava"]), tie_word_embeddings=True)
    model = random_decoder(row, config)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_random_weights_are_finite_and_spread():
    module = torch.nn.ModuleDict({"wide": torch.nn.Linear(1100, 1000), "norm": torch.nn.LayerNorm(3)})
    fill_at_random(module)
    wide = module["wide"].weight
    assert wide.numel() > DRAWN
    assert wide.std().item() == pytest.approx(0.02, rel=0.01)
    assert wide.view(-1)[0] == wide.view(-1)[DRAWN]
    assert module["norm"].weight.tolist() == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own, in torch 2.13
def test_compiled_parts_give_the_same():
    model = small("llava")
    inputs = prompts(model, 1, 5)
    with torch.inference_mode():
        before = model(**inputs).logits
        decoders.compile_parts(model)
        torch.testing.assert_close(model(**inputs).logits, before, atol=1e-5, rtol=1e-4)


PARAMETERS = {
    "paligemma": 2.923,
    "llava": 7.063,
    "llava_8_layers": 2.206,
    "llava_next": 7.063,
    "llava_onevision": 8.030,
    "qwen2_vl": 8.291,
    "qwen2_5_vl_3b": 3.755,
    "qwen2_5_vl": 8.292,
    "qwen3_vl_2b": 2.128,
    "qwen3_vl": 8.767,
    "internvl3": 7.944,
    "gemma3": 4.300,
    "smolvlm": 2.247,
    "smolvlm_256m": 0.2565,
}
"""The parameters of the published checkpoints, in 10^9."""


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_parameters_of_its_checkpoint(name):
    shape = shape_of(name)
    with torch.device("meta"), initialization.no_init_weights():
        model = shape.row().stock_class(shape.new_config())
    model.tie_weights()
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(PARAMETERS[name], rel=3e-4)


def test_a_setting_is_measured_with_random_weights(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(SHAPES, "paligemma", Shape("paligemma", "someone/published", CONFIGS["paligemma"]))
    words = [
        "--seconds",
        "0.01",
        "--new-tokens",
        "2",
        "--text-length",
        "4",
        "--no-memory",
        "-o",
        str(tmp_path / "out.json"),
    ]
    assert main(["bench", "--setting", "paligemma", "--reduction", json.dumps(SCHEDULE), *words]) == 0
    assert "the shape of someone/published" in capsys.readouterr().out
    loaded = DecoderReport.load(tmp_path / "out.json")
    assert loaded.source == {"setting": "paligemma", "shape": "someone/published"}
    assert (loaded.conditions.batch_size, loaded.conditions.text_length, loaded.conditions.new_tokens) == (1, 4, 2)


@pytest.fixture
def folder(tmp_path):
    tiny_model("llava").save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "reduces no tokens"),
        (["--reduction", "null"], "reduces no tokens"),
        (["--reduction", '{"method": "pumer", "site": "inputs", "keep_ratio": 2}'], "keep_ratio=2"),
        (["--reduction", '{"method": "tome", "site": "tower", "merge_ratio": 0.2}'], "site='tower'"),
        (["--reduction", json.dumps(SCHEDULE), "--pooled-only"], "--pooled-only"),
        (["--reduction", json.dumps(SCHEDULE), "--batch-size", "auto"], "--batch-size auto"),
        (["--reduction", json.dumps(SCHEDULE), "--attention", "flash"], "attention='flash'"),
        (["--reduction", json.dumps(SCHEDULE), "--text-length", "0"], "text_length=0"),
        (["--reduction", json.dumps(SCHEDULE), "--new-tokens", "-1"], "new_tokens=-1"),
        (["--reduction", json.dumps(SCHEDULE), "--image-tokens", "50"], "image_tokens=50"),
        (["--reduction", json.dumps(SCHEDULE), "--seconds", "0"], "seconds=0"),
    ],
)
def test_a_bad_argument_is_named(words, message, folder, capsys):
    assert main(["bench", folder, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--setting", "paligema"], "paligema"),
        (["--setting", "paligemma", "--random-weights"], "--random-weights"),
        (["--setting", "paligemma"], "reduces no tokens"),
        (["--setting", "vilt/vqa", "--new-tokens", "0"], "--new-tokens"),
    ],
)
def test_a_bad_setting_is_named(words, message, capsys):
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_choices_of_the_command_line_are_the_true_ones():
    assert tuple(SHAPES) == choices.DECODER_SETTINGS
    assert choices.ATTENTIONS == ATTENTIONS
