"""Original ViLT and METER: every kind of their Lightning files converts, loads and runs."""

import pytest
import tiny_checkpoints as tiny
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModel, AutoModelForVisualQuestionAnswering

import pumer_hf
from pumer_hf import convert_checkpoint
from pumer_hf.models.encoders.meter.towers import resize_position_embeddings

PRETRAINING = ("mlm_score", "itm_score")
MAKERS = {"vilt": tiny.original_vilt, "meter": tiny.original_meter}
CLASSES = {"vilt": "PuMerVilt", "meter": "PuMerMeter"}
# The checkpoints that their authors published, with the heads in each and the class that it becomes.
PUBLISHED = {
    ("vilt", "200k_mlm_itm"): ((*PRETRAINING,), "Model"),
    ("vilt", "vqa"): (("vqa_classifier",), "ForQuestionAnswering"),
    ("vilt", "nlvr2"): (("nlvr2_classifier",), "ForImagesAndTextClassification"),
    ("vilt", "irtr_coco"): (("itm_score", "rank_output"), "ForImageAndTextRetrieval"),
    ("vilt", "irtr_f30k"): ((*PRETRAINING, "rank_output"), "ForImageAndTextRetrieval"),
    ("meter", "pretrain"): ((*PRETRAINING, "mpp_score"), "Model"),
    ("meter", "vqa"): ((*PRETRAINING, "vqa_classifier"), "ForQuestionAnswering"),
    ("meter", "nlvr2"): (("nlvr2_classifier",), "ForImagesAndTextClassification"),
    ("meter", "snli"): (("snli_classifier",), "ForVisualEntailment"),
    ("meter", "flickr"): (("itm_score", "rank_output"), "ForImageAndTextRetrieval"),
    ("meter", "coco"): ((*PRETRAINING, "rank_output"), "ForImageAndTextRetrieval"),
}


def inputs(family, model):
    side = model.config.image_size
    images = (2, 2) if model.config.num_images == 2 else (2,)
    pixel_values = torch.randn(*images, 3, side, side, generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.tensor([[2, 5, 6], [2, 7, 8]]), "pixel_values": pixel_values}


def load(folder, name):
    model, info = getattr(pumer_hf, name).from_pretrained(folder, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize(("family", "name"), PUBLISHED)
def test_published_checkpoints_convert_load_and_run(family, name, tmp_path):
    heads, ending = PUBLISHED[family, name]
    file = tiny.save_lightning(tmp_path / "model.ckpt", MAKERS[family](*heads))
    folder = convert_checkpoint(file, tmp_path / "converted")
    assert folder == tmp_path / "converted"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "modeling_pumer.py"]
    model = load(folder, CLASSES[family] + ending)
    assert model.config.architectures == [CLASSES[family] + ending]
    outputs = model(**inputs(family, model))
    assert outputs[0].isfinite().all()
    loader = AutoModelForVisualQuestionAnswering if ending == "ForQuestionAnswering" else AutoModel
    assert type(loader.from_pretrained(folder)).__name__.startswith(CLASSES[family])


def test_vilt_values_land_in_the_right_place(tmp_path):
    weights = tiny.original_vilt("vqa_classifier")
    folder = convert_checkpoint(tiny.save_lightning(tmp_path / "a.ckpt", weights), tmp_path / "converted")
    ours = load_file(folder / "model.safetensors")
    query, key, value = weights["transformer.blocks.1.attn.qkv.weight"].chunk(3)
    attention = "vilt.encoder.layer.1.attention.attention."
    for part, expected in (("query", query), ("key", key), ("value", value)):
        assert torch.equal(ours[f"{attention}{part}.weight"], expected)
    for name, original in {
        "vilt.embeddings.cls_token": "transformer.cls_token",
        "vilt.embeddings.position_embeddings": "transformer.pos_embed",
        "vilt.embeddings.patch_embeddings.projection.weight": "transformer.patch_embed.proj.weight",
        "vilt.embeddings.token_type_embeddings.weight": "token_type_embeddings.weight",
        "vilt.encoder.layer.0.layernorm_before.weight": "transformer.blocks.0.norm1.weight",
        "vilt.encoder.layer.0.layernorm_after.bias": "transformer.blocks.0.norm2.bias",
        "vilt.encoder.layer.1.attention.output.dense.bias": "transformer.blocks.1.attn.proj.bias",
        "vilt.encoder.layer.1.intermediate.dense.weight": "transformer.blocks.1.mlp.fc1.weight",
        "vilt.layernorm.weight": "transformer.norm.weight",
        "vilt.pooler.dense.weight": "pooler.dense.weight",
        "classifier.3.bias": "vqa_classifier.3.bias",
    }.items():
        assert torch.equal(ours[name], weights[original]), name


def test_meter_values_land_in_the_right_place(tmp_path):
    weights = tiny.original_meter("snli_classifier")
    folder = convert_checkpoint(tiny.save_lightning(tmp_path / "a.ckpt", weights), tmp_path / "converted")
    ours = load_file(folder / "model.safetensors")
    for parts, suffix in ((weights["vit_model.visual.transformer.resblocks.0.attn.in_proj_weight"], "weight"),):
        for part, expected in zip("qkv", parts.chunk(3), strict=True):
            assert torch.equal(ours[f"meter.vision_model.encoder.layers.0.self_attn.{part}_proj.{suffix}"], expected)
    for name, original in {
        "meter.vision_model.pre_layrnorm.bias": "vit_model.visual.ln_pre.bias",
        "meter.vision_model.embeddings.class_embedding": "vit_model.visual.class_embedding",
        "meter.vision_model.encoder.layers.1.layer_norm2.weight": (
            "vit_model.visual.transformer.resblocks.1.ln_2.weight"
        ),
        "meter.vision_model.encoder.layers.1.mlp.fc2.bias": (
            "vit_model.visual.transformer.resblocks.1.mlp.c_proj.bias"
        ),
        "meter.text_model.encoder.layer.1.output.dense.bias": "text_transformer.encoder.layer.1.output.dense.bias",
        "meter.text_projection.weight": "cross_modal_text_transform.weight",
        "meter.image_projection.weight": "cross_modal_image_transform.weight",
        "meter.pairs.1.text_layer.self_attention.key.weight": "cross_modal_text_layers.1.attention.self.key.weight",
        "meter.pairs.1.text_layer.cross_attention.layernorm.bias": (
            "cross_modal_text_layers.1.crossattention.output.LayerNorm.bias"
        ),
        "meter.pairs.0.image_layer.cross_attention.output.weight": (
            "cross_modal_image_layers.0.crossattention.output.dense.weight"
        ),
        "meter.pairs.0.image_layer.feed_forward.output.bias": "cross_modal_image_layers.0.output.dense.bias",
        "meter.pairs.0.image_layer.feed_forward.layernorm.weight": (
            "cross_modal_image_layers.0.output.LayerNorm.weight"
        ),
        "meter.image_pooler.dense.bias": "cross_modal_image_pooler.dense.bias",
        "classifier.1.weight": "snli_classifier.1.weight",
    }.items():
        assert torch.equal(ours[name], weights[original]), name


def test_vilt_config(tmp_path):
    file = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_vilt("nlvr2_classifier"))
    config = load(convert_checkpoint(file, tmp_path / "out"), "PuMerViltForImagesAndTextClassification").config
    assert (config.num_attention_heads, config.hidden_size, config.num_hidden_layers) == (2, 16, 2)
    assert (config.image_size, config.patch_size, config.max_position_embeddings) == (32, 8, 12)
    assert (config.layer_norm_eps, config.text_layer_norm_eps) == (1e-6, 1e-12)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.0)
    assert (config.semantics, config.reduction) == ("paper", None)
    assert (config.num_images, config.modality_type_vocab_size) == (2, 3)
    assert config.id2label == {0: "False", 1: "True"}
    assert config.label2id == {"False": 0, "True": 1}


def test_meter_config(tmp_path):
    file = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_meter("snli_classifier"))
    config = load(convert_checkpoint(file, tmp_path / "out"), "PuMerMeterForVisualEntailment").config
    assert (config.co_attention, config.semantics, config.reduction) == ("parallel", "paper", None)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 2, 2)
    assert (config.intermediate_size, config.layer_norm_eps, config.hidden_dropout_prob) == (64, 1e-12, 0.1)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (24, 2, 2)
    assert (text.layer_norm_eps, text.max_position_embeddings, text.pad_token_id) == (1e-5, 14, 1)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (20, 2, 2)
    assert (vision.hidden_act, vision.layer_norm_eps, vision.image_size, vision.patch_size) == (
        "quick_gelu",
        1e-5,
        16,
        4,
    )
    assert config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"}


@pytest.mark.parametrize("image_size", [8, 24])
def test_any_target_image_size_of_meter(image_size, tmp_path):
    weights = tiny.original_meter("vqa_classifier")
    file = tiny.save_lightning(tmp_path / "a.ckpt", weights)
    folder = convert_checkpoint(file, tmp_path / "out", image_size=image_size)
    model = load(folder, "PuMerMeterForQuestionAnswering")
    assert model.config.image_size == model.config.vision_config.image_size == image_size
    expected = resize_position_embeddings(
        weights["vit_model.visual.positional_embedding"], (image_size // tiny.METER_PATCH) ** 2 + 1
    )
    assert_close(model.meter.vision_model.embeddings.position_embedding.weight, expected)
    assert model(**inputs("meter", model)).logits.isfinite().all()


@pytest.mark.parametrize("family", MAKERS)
def test_a_head_for_retrieval_from_pretraining(family, tmp_path):
    weights = MAKERS[family](*PRETRAINING)
    file = tiny.save_lightning(tmp_path / "a.ckpt", weights)
    folder = convert_checkpoint(file, tmp_path / "out", task="flickr30k")
    model = load(folder, f"{CLASSES[family]}ForImageAndTextRetrieval")
    assert torch.equal(model.rank_output.weight, weights["itm_score.fc.weight"][1:])
    assert torch.equal(model.rank_output.bias, weights["itm_score.fc.bias"][1:])


@pytest.mark.parametrize("family", MAKERS)
def test_pretraining_for_nlvr2_gets_an_embedding_of_the_second_image(family, tmp_path):
    weights = MAKERS[family](*PRETRAINING)
    file = tiny.save_lightning(tmp_path / "a.ckpt", weights)
    model = load(convert_checkpoint(file, tmp_path / "out", task="nlvr2"), f"{CLASSES[family]}Model")
    parent = model.embeddings if family == "vilt" else model
    original = weights["token_type_embeddings.weight"]
    assert torch.equal(parent.token_type_embeddings.weight, original[[0, 1, 1]])
    assert model.config.modality_type_vocab_size == 3


def test_a_finetuned_checkpoint_without_its_head(tmp_path):
    file = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_vilt("vqa_classifier"))
    load(convert_checkpoint(file, tmp_path / "out", task="pretrain"), "PuMerViltModel")


def test_a_plain_state_dict_without_a_config(tmp_path):
    torch.save(tiny.original_meter("vqa_classifier"), tmp_path / "weights.pth")
    heads = {"num_attention_heads": 4}
    config = {**heads, "text_config": heads, "vision_config": heads}
    folder = convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out", config=config)
    loaded = load(folder, "PuMerMeterForQuestionAnswering").config
    assert loaded.text_config.num_attention_heads == loaded.vision_config.num_attention_heads == 4
    with pytest.raises(ValueError, match="not tell num_attention_heads"):
        convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out2")


def test_half_precision_stays(tmp_path):
    weights = {name: value.bfloat16() for name, value in tiny.original_vilt("vqa_classifier").items()}
    file = tiny.save_lightning(tmp_path / "a.ckpt", weights)
    folder = convert_checkpoint(file, tmp_path / "out")
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
