"""Folders: what was released with PuMer, and stock ViLT."""

import json

import pytest
import tiny_checkpoints as tiny
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES
from torch.testing import assert_close
from transformers import (
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    ViltConfig,
    ViltForImagesAndTextClassification,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltModel,
)

import pumer_hf
from pumer_hf import convert_checkpoint

TASKS = {
    "vqa2": (("vqa_classifier",), "ForQuestionAnswering"),
    "ve": (("ve_classifier",), "ForVisualEntailment"),
    "nlvr2": (("nlvr2_classifier",), "ForImagesAndTextClassification"),
    "irtr": (("itm_score", "rank_output"), "ForImageAndTextRetrieval"),
}
SCHEDULE = {"prune_r": 0.1, "merge_r": 0.3, "merge_text": 0.2}
LAYERS = {"vilt": [0, 1], "meter": [0, 2]}
ANSWERS = {0: "no", 1: "yes", 2: "2", 3: "red", 4: "cat"}


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    model, info = getattr(pumer_hf, config["architectures"][0]).from_pretrained(folder, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def run(model):
    images = (1, 2) if model.config.num_images == 2 else (1,)
    pixel_values = torch.randn(
        *images, 3, model.config.image_size, model.config.image_size, generator=torch.Generator().manual_seed(0)
    )
    return model(input_ids=torch.tensor([[2, 5, 6, 7]]), pixel_values=pixel_values)


# released with PuMer


@pytest.mark.parametrize("reduces", [False, True], ids=["ft", "p0.1r0.3t0.2"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", LAYERS)
def test_released_folders(family, task, reduces, tmp_path):
    heads, ending = TASKS[task]
    schedule = {"reduce_layers": LAYERS[family], **SCHEDULE} if reduces else {}
    weights = tiny.save_released(tmp_path / "in", family, heads, **schedule)
    model = load(convert_checkpoint(tmp_path / "in", tmp_path / "out"))
    assert type(model).__name__ == f"PuMer{family.capitalize()}{ending}"
    config = model.config
    assert config.semantics == "release"
    assert config.reduction == (
        {
            "method": "pumer",
            "layers": [0, 1],
            "prune_ratio": 0.1,
            "image_merge_ratio": 0.3,
            "text_merge_ratio": 0.2,
            "saliency": "mean_head",
        }
        if reduces
        else None
    )
    if family == "meter":
        assert (config.co_attention, config.hidden_dropout_prob) == ("sequential", 0.1)
        assert config.text_config.num_attention_heads == config.vision_config.num_attention_heads == 2
        original = weights["meter.vit_model.transformer.resblocks.1.attn.in_proj_bias"].chunk(3)[1]
        assert torch.equal(model.meter.vision_model.encoder.layers[1].self_attn.k_proj.bias, original)
    else:
        assert (config.layer_norm_eps, config.text_layer_norm_eps, config.hidden_dropout_prob) == (1e-6, 1e-12, 0.0)
        original = weights["vilt.transformer.blocks.1.attn.qkv.bias"].chunk(3)[2]
        assert torch.equal(model.vilt.encoder.layer[1].attention.attention.value.bias, original)
    assert run(model).logits.isfinite().all()
    assert type(AutoModel.from_pretrained(tmp_path / "out")).__name__ == f"PuMer{family.capitalize()}Model"


@pytest.mark.parametrize(
    ("family", "given", "expected"),
    [
        ("vilt", {"reduce_layers": "0, 1", "sim_method": "fh"}, ([0, 1], "first_head")),
        ("vilt", {"reduce_layers": [1], "sim_method": "first_head"}, ([1], "first_head")),
        ("vilt", {"reduce_layers": [1], "sim_method": "mh"}, ([1], "mean_head")),
        ("meter", {"reduce_layers": "2", "sim_method": "k_metric", "merge_style": "tip"}, ([1], "mean_head")),
    ],
)
def test_released_schedules(family, given, expected, tmp_path):
    tiny.save_released(tmp_path / "in", family, ["vqa_classifier"], **SCHEDULE, **given)
    reduction = load(convert_checkpoint(tmp_path / "in", tmp_path / "out")).config.reduction
    assert (reduction["layers"], reduction["saliency"]) == expected


@pytest.mark.parametrize("given", [{"reduce_layers": []}, {"reduce_layers": ""}, {"prune_r": 0}])
def test_a_release_that_prunes_nothing_reduces_nothing(given, tmp_path):
    tiny.save_released(
        tmp_path / "in", "vilt", ["vqa_classifier"], **{"reduce_layers": [0], **SCHEDULE, "sim_method": "qk", **given}
    )
    assert load(convert_checkpoint(tmp_path / "in", tmp_path / "out")).config.reduction is None


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("vilt", {"sim_method": "k_metric"}, "sim_method='k_metric'"),
        ("vilt", {"sim_method": "qk"}, "sim_method='qk'"),
        ("vilt", {"merge_style": "tip"}, "merge_style='tip'"),
        ("vilt", {"merge_style": "diff"}, "merge_style='diff'"),
        ("vilt", {"merge_r": 8}, "merge_r=8"),
        ("vilt", {"prune_layers": [2]}, r"prune_layers=\[2\]"),
        ("vilt", {"reduce_layers": "a"}, "reduce_layers=.*list"),
        ("vilt", {"reduce_layers": [2]}, "layer 2, .* 0 to 1"),
        ("meter", {"reduce_layers": [0, 1]}, r"METER .*blocks 0, 2, 4, .*\[1\]"),
    ],
)
def test_released_modes_that_are_not_supported(family, given, message, tmp_path):
    config = {"reduce_layers": [0], **SCHEDULE, **given}
    tiny.save_released(tmp_path / "in", family, ["vqa_classifier"], **config)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_released_shards_and_safetensors(tmp_path):
    weights = tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    (tmp_path / "in" / "pytorch_model.bin").unlink()
    names = list(weights)
    shards = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, tmp_path / "in" / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    index_file = tmp_path / "in" / "model.safetensors.index.json"
    index_file.write_text(json.dumps(index))
    model = load(convert_checkpoint(tmp_path / "in", tmp_path / "out"))
    assert torch.equal(model.classifier[3].weight, weights["vqa_classifier.3.weight"])
    index_file.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match=r"shard '\.\./elsewhere.safetensors'"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out2")


@pytest.mark.parametrize("form", [list, lambda answers: {str(index): answer for index, answer in enumerate(answers)}])
def test_answers_of_vqa_beside_the_weights(form, tmp_path):
    tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    answers = [f"answer {index}" for index in range(tiny.LABELS)]
    (tmp_path / "in" / "vqa2_label2ans.json").write_text(json.dumps(form(answers)))
    config = load(convert_checkpoint(tmp_path / "in", tmp_path / "out")).config
    assert config.id2label == dict(enumerate(answers))
    (tmp_path / "in" / "vqa2_label2ans.json").write_text(json.dumps(answers[1:]))
    with pytest.raises(ValueError, match="vqa2_label2ans.json .*6 labels.* 7"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out2")


def test_fields_of_the_user_win(tmp_path):
    tiny.save_released(tmp_path / "in", "meter", ["vqa_classifier"])
    answers = {str(index): f"a{index}" for index in range(tiny.LABELS)}
    overrides = {"co_attention": "parallel", "id2label": answers, "text_config": {"hidden_dropout_prob": 0.3}}
    config = load(convert_checkpoint(tmp_path / "in", tmp_path / "out", config=overrides)).config
    assert (config.co_attention, config.id2label[3], config.label2id["a3"]) == ("parallel", "a3", 3)
    assert (config.text_config.hidden_dropout_prob, config.text_config.layer_norm_eps) == (0.3, 1e-5)
    (tmp_path / "overrides.json").write_text(json.dumps(overrides))
    again = load(convert_checkpoint(tmp_path / "in", tmp_path / "out2", config=tmp_path / "overrides.json")).config
    assert again.to_dict() == {**config.to_dict(), "_name_or_path": again._name_or_path}


def test_fields_from_a_config(tmp_path):
    tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    first = load(convert_checkpoint(tmp_path / "in", tmp_path / "out")).config
    first.num_attention_heads = 4
    second = load(convert_checkpoint(tmp_path / "in", tmp_path / "out2", config=first)).config
    assert second.num_attention_heads == 4
    assert second.id2label == first.id2label


def test_fields_from_a_config_that_does_not_know_the_task(tmp_path):
    tiny.save_released(tmp_path / "in", "meter", ["nlvr2_classifier"])
    config = load(convert_checkpoint(tmp_path / "in", tmp_path / "out", task="pretrain")).config
    assert (config.num_images, config.num_labels) == (-1, 2)
    config.modality_type_vocab_size = 3
    second = load(convert_checkpoint(tmp_path / "in", tmp_path / "out2", config=config)).config
    assert (second.num_images, second.id2label) == (2, {0: "False", 1: "True"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"text_config": {"num_heads": 2}}, "config.text_config.num_heads .*RobertaConfig"),
        ({"vision_config": 3}, "config.vision_config=3: .*dict"),
    ],
)
def test_unknown_fields_of_a_tower(overrides, message, tmp_path):
    tiny.save_released(tmp_path / "in", "meter", ["vqa_classifier"])
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "in", tmp_path / "out", config=overrides)


# stock ViLT


def stock_config(**values):
    ours = FAMILIES["vilt"].config(**values).to_dict()
    names = ("reduction", "semantics", "text_layer_norm_eps", "model_type", "architectures")
    return ViltConfig(**{name: value for name, value in ours.items() if name not in names})


@pytest.mark.parametrize("shape", ["safetensors", "bin", "file"])
def test_stock_vilt_keeps_its_logits(shape, tmp_path):
    stock = ViltForQuestionAnswering(stock_config(id2label=ANSWERS, label2id=None)).eval()
    stock.save_pretrained(tmp_path / "in")
    source = tmp_path / "in"
    if shape == "bin":
        weights = {**load_file(source / "model.safetensors")}
        weights["vilt.embeddings.text_embeddings.position_ids"] = torch.arange(12)[None]
        torch.save(weights, source / "pytorch_model.bin")
        (source / "model.safetensors").unlink()
    config = None
    if shape == "file":
        source = source / "model.safetensors"
        config = {"num_attention_heads": 2, "hidden_dropout_prob": 0.0}
    folder = convert_checkpoint(source, tmp_path / "out", config=config)
    model = AutoModelForVisualQuestionAnswering.from_pretrained(folder).eval()
    inputs = FAMILIES["vilt"].inputs()
    assert_close(model(**inputs).logits, stock(**inputs).logits, atol=1e-5, rtol=1e-4)
    if shape != "file":
        assert model.config.id2label == ANSWERS
        assert model.config.initializer_range == 0.4
    assert model.config.semantics == "paper"


def test_other_stock_vilts(tmp_path):
    two_images = stock_config(num_labels=2, num_images=2, modality_type_vocab_size=3)
    ViltForImagesAndTextClassification(two_images).save_pretrained(tmp_path / "nlvr2")
    model = load(convert_checkpoint(tmp_path / "nlvr2", tmp_path / "out1"))
    assert type(model) is pumer_hf.PuMerViltForImagesAndTextClassification
    assert model.config.num_images == 2
    file = tmp_path / "nlvr2" / "model.safetensors"
    bare = convert_checkpoint(file, tmp_path / "out2", config={"num_attention_heads": 2})
    assert type(load(bare)) is pumer_hf.PuMerViltForImagesAndTextClassification

    ViltModel(stock_config()).save_pretrained(tmp_path / "bare")
    assert type(load(convert_checkpoint(tmp_path / "bare", tmp_path / "out3"))) is pumer_hf.PuMerViltModel
    ViltForMaskedLM(stock_config()).save_pretrained(tmp_path / "mlm")
    assert type(load(convert_checkpoint(tmp_path / "mlm", tmp_path / "out4"))) is pumer_hf.PuMerViltModel


def test_our_own_vilt_with_a_reduction_keeps_it(tmp_path):
    reduction = {"layers": [1], "prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}
    model = FAMILIES["vilt"].model({"method": "pumer", **reduction})
    model.save_pretrained(tmp_path / "in")
    assert load(convert_checkpoint(tmp_path / "in", tmp_path / "out")).config.reduction == model.config.reduction
