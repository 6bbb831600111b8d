"""METER: towers, cross-layers, processor. What families share is in `test_families.py` and `test_contract.py`."""

import copy

import numpy as np
import pytest
import torch
from tiny import WIDTH, undecoded
from tiny_models import FAMILIES, REAL_TEXT, meter_config, meter_inputs, schedule
from torch.nn import functional as F
from transformers import (
    AutoProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModel,
    RobertaForMaskedLM,
    RobertaModel,
    RobertaTokenizer,
)

from pumer_hf import (
    PuMerMeterConfig,
    PuMerMeterForImageAndTextRetrieval,
    PuMerMeterForImagesAndTextClassification,
    PuMerMeterForQuestionAnswering,
    PuMerMeterForVisualEntailment,
    PuMerMeterModel,
    PuMerMeterProcessor,
)
from pumer_hf.data.vqa import VqaCollator, VqaDataArguments
from pumer_hf.inputs import Encoder
from pumer_hf.models.encoders.meter.modeling import MeterInputs
from pumer_hf.models.encoders.meter.towers import resize_position_embeddings
from pumer_hf.models.encoders.outputs import ATTENTIONS
from pumer_hf.recipes.build import build_teacher, load_model, teacher_labels
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.training.parameters import decays

CROSS = {
    name: getattr(meter_config(), name)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "initializer_range")
}


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Folders of a whole CLIP and of a RoBERTa with its language model head, as on the Hub, and their towers."""
    torch.manual_seed(3)
    config = meter_config()
    folders = [str(tmp_path_factory.mktemp(name)) for name in ("clip", "roberta")]
    vision = {**config.vision_config.to_dict(), "num_hidden_layers": 3}
    text = {**WIDTH, "num_hidden_layers": 1, "vocab_size": 9}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).save_pretrained(folders[0])
    RobertaForMaskedLM(config.text_config).save_pretrained(folders[1])
    clip = CLIPVisionModel.from_pretrained(folders[0]).eval()
    roberta = RobertaModel.from_pretrained(folders[1], add_pooling_layer=False).eval()
    return folders, clip, roberta


# towers


def test_the_towers_equal_those_of_transformers(towers):
    folders, clip, roberta = towers
    model = PuMerMeterModel.from_towers(*folders, image_size=16, **CROSS).eval()
    inputs = meter_inputs()
    assert model.config.vision_config.num_hidden_layers == 2
    # all blocks but the last, and the LayerNorm that CLIP applies to its [CLS] only, on all tokens
    states = clip(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(
        model.vision_model(inputs["pixel_values"], model.tower_plans(2))[0].states, clip.post_layernorm(states)
    )
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model.text_model(**text).last_hidden_state, roberta(**text).last_hidden_state)


def test_what_comes_into_the_blocks_is_the_towers_projected_plus_a_modality(towers):
    model, inputs = FAMILIES["meter"].model().meter, meter_inputs()
    pair = model.embed(dict.fromkeys(MeterInputs.__annotations__) | inputs, image_token_type_idx=1)
    kinds = model.token_type_embeddings.weight
    image = (
        model.vision_model(inputs["pixel_values"], model.tower_plans(2))[0].states @ model.image_projection.weight.T
    )
    torch.testing.assert_close(pair.image.states, image + model.image_projection.bias + kinds[1])
    text = model.text_model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(
        pair.text.states, text @ model.text_projection.weight.T + model.text_projection.bias + kinds[0]
    )


def test_from_towers_interpolates_the_position_embeddings(towers):
    folders, clip, _ = towers
    model = PuMerMeterModel.from_towers(*folders, image_size=24, **CROSS)
    old = clip.embeddings.position_embedding.weight
    new = model.vision_model.embeddings.position_embedding.weight
    assert model.config.image_size == model.config.vision_config.image_size == 24
    assert torch.equal(new[0], old[0])
    grid = old[1:].view(4, 4, -1).permute(2, 0, 1)
    expected = F.interpolate(grid[None], size=(6, 6), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    torch.testing.assert_close(new[1:].view(6, 6, -1), expected)
    pixels = torch.randn(2, 3, 24, 24)
    assert model(input_ids=torch.ones(2, 4, dtype=torch.long), pixel_values=pixels).pooler_output.isfinite().all()


def test_position_embeddings_of_the_same_grid_stay_as_they_are():
    weight = torch.randn(17, 3)
    assert resize_position_embeddings(weight, 17) is weight


def test_from_towers_makes_heads_and_takes_other_config_fields(towers):
    folders, _, roberta = towers
    reduction = schedule("pumer", "small")
    model = PuMerMeterForVisualEntailment.from_towers(
        *folders, image_size=16, reduction=reduction, num_labels=3, co_attention="sequential", **CROSS
    )
    assert model.config.reduction == {**reduction, "layers": [1]}
    assert model.config.co_attention == "sequential"
    assert model.classifier[-1].out_features == 3
    assert torch.equal(model.get_input_embeddings().weight, roberta.get_input_embeddings().weight)
    assert model.config.text_config is not roberta.config


# cross-layers


def test_the_image_layer_reads_the_text_that_came_into_the_block():
    model = FAMILIES["meter"].model(schedule("pumer", "small")).meter
    seen = []
    for pair in model.pairs:
        pair.image_layer.cross_attention.register_forward_hook(lambda module, args, output: seen.append(args[1]))
    outputs = model(**meter_inputs(), output_hidden_states=True)
    lengths = [9, *(text for text, _ in model.output_lengths(9, 17))]
    for context, length, states in zip(seen, lengths, outputs.hidden_states, strict=False):
        assert context.states.shape[1] == context.mask.shape[1] == length
        torch.testing.assert_close(context.states, states[:, :length])


def test_sequential_co_attention_reads_what_the_text_layer_made():
    model = FAMILIES["meter"].model(schedule("pumer", "small"), co_attention="sequential").meter
    seen = []
    for pair in model.pairs:
        pair.image_layer.cross_attention.register_forward_hook(lambda module, args, output: seen.append(args[1]))
    outputs = model(**meter_inputs(), output_hidden_states=True)
    lengths = [text for text, _ in model.output_lengths(9, 17)]
    for context, length, states in zip(seen, lengths, outputs.hidden_states[1:], strict=True):
        assert context.states.shape[1] == context.mask.shape[1] == length
        torch.testing.assert_close(context.states, states[:, :length])


def test_the_two_forms_of_co_attention_differ():
    parallel = FAMILIES["meter"].model()
    sequential = FAMILIES["meter"].model(co_attention="sequential")
    sequential.load_state_dict(parallel.state_dict())
    one, other = (model(**meter_inputs()).logits for model in (parallel, sequential))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("co_attention", ["parallel", "sequential"])
def test_both_forms_reduce_alike(co_attention):
    model = FAMILIES["meter"].model(schedule("pumer", "extreme"), co_attention=co_attention)
    outputs = model(**meter_inputs(), labels=torch.rand(3, 5))
    outputs.loss.backward()
    assert [(trace.num_text, trace.num_image) for trace in outputs.reduction] == model.output_lengths(9, 17)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_saliency_is_the_text_to_image_attention_of_the_pair():
    model, inputs = FAMILIES["meter"].model(schedule("pumer", "small")), meter_inputs()
    outputs = model(**inputs, output_attentions=True)
    weight = inputs["attention_mask"][:, None, :, None]
    real = inputs["attention_mask"].sum(dim=1, keepdim=True)
    expected = (outputs.cross_attentions[1] * weight).sum(dim=(1, 2)) / (2 * real)
    torch.testing.assert_close(outputs.reduction[0].saliency, expected)
    torch.testing.assert_close(expected.sum(dim=1), torch.ones(3))


def test_attentions_have_the_lengths_of_their_pairs():
    model = FAMILIES["meter"].model(schedule("pumer", "small"))
    outputs = model(**meter_inputs(), output_attentions=True)
    lengths = [(9, 17), *model.output_lengths(9, 17)]
    for index in range(4):
        (text, image), (_, new_image) = lengths[index : index + 2]
        assert outputs.attentions[index].shape == (3, 2, text, text)
        assert outputs.cross_attentions[index].shape == (3, 2, text, image)
        assert outputs.image_attentions[index].shape == (3, 2, new_image, new_image)
        assert outputs.image_cross_attentions[index].shape == (3, 2, new_image, text)
    for name in ATTENTIONS:
        assert len(outputs[name]) == 4
        torch.testing.assert_close(outputs[name][0].sum(dim=-1), torch.ones(outputs[name][0].shape[:-1]))
        assert name not in model(**meter_inputs())
    assert not outputs.image_cross_attentions[0][2, :, :, REAL_TEXT[2] :].any()


def test_each_kind_of_attention_is_that_of_its_name():

    model = FAMILIES["meter"].model()
    layers = model.meter.pairs[0]
    parts = {
        "attentions": layers.text_layer.self_attention,
        "cross_attentions": layers.text_layer.cross_attention,
        "image_attentions": layers.image_layer.self_attention,
        "image_cross_attentions": layers.image_layer.cross_attention,
    }
    for silent, part in parts.items():
        for each in parts.values():
            torch.nn.init.eye_(each.value.weight)
        torch.nn.init.zeros_(part.value.weight)
        outputs = model(**meter_inputs(), output_attentions=True)
        kept = {name: outputs[name][0] for name in parts}
        for probabilities in kept.values():
            probabilities.retain_grad()
        outputs.logits.sum().backward()
        assert [name for name, probabilities in kept.items() if not probabilities.grad.any()] == [silent]


def test_the_pooler_reads_the_cls_of_both():
    model = FAMILIES["meter"].model(schedule("pumer", "small")).meter
    outputs = model(**meter_inputs())
    num_text = outputs.reduction[-1].num_text
    text, image = outputs.last_hidden_state[:, 0], outputs.last_hidden_state[:, num_text]
    expected = torch.cat([model.text_pooler.dense(text), model.image_pooler.dense(image)], dim=-1).tanh()
    torch.testing.assert_close(outputs.pooler_output, expected)


# config


def test_the_default_is_meter_at_384():
    config = PuMerMeterConfig()
    assert (config.image_size, config.vision_config.image_size, config.vision_config.patch_size) == (384, 384, 16)
    assert (config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers) == (11, 12)
    assert config.num_reducible_layers == 6
    assert config.max_text_length == 512


def test_the_image_size_is_that_of_the_tower(tmp_path):
    assert meter_config().image_size == 16
    config = meter_config(image_size=32)
    assert config.vision_config.image_size == 32
    config.save_pretrained(tmp_path)
    loaded = PuMerMeterConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert PuMerMeterConfig.from_pretrained(tmp_path, image_size=24).vision_config.image_size == 24


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"co_attention": "serial"}, "co_attention='serial': .*parallel, sequential"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"hidden_size": 15}, "hidden_size=15 .*num_attention_heads=2"),
        ({"image_size": 18}, "image_size=18 .*vision_config.patch_size=4"),
    ],
)
def test_a_bad_value_is_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        meter_config(**overrides)


def test_from_pretrained_checks_co_attention(tmp_path):
    meter_config().save_pretrained(tmp_path)
    assert PuMerMeterConfig.from_pretrained(tmp_path, co_attention="sequential").co_attention == "sequential"
    with pytest.raises(ValueError, match="co_attention='both'"):
        PuMerMeterConfig.from_pretrained(tmp_path, co_attention="both")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "input_ids or inputs_embeds"),
        ({"pixel_values": None}, "pixel_values"),
        ({"pixel_mask": torch.zeros(3, 16, 16)}, "METER .*square images without padding"),
        ({"pixel_values": torch.zeros(2, 3, 16, 16)}, "3 texts, .*2 images"),
        ({"pixel_values": torch.zeros(3, 3, 16, 20)}, r"\(3, 3, 16, 20\): .*\(batch, 3, 16, 16\)"),
        ({"labels": torch.zeros(3)}, r"labels .*\(3,\): .*\(3, 5\)"),
        ({"input_ids": torch.ones(3, 20, dtype=torch.long), "attention_mask": None}, "20 tokens, .* takes 12"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        FAMILIES["meter"].model()(**{**meter_inputs(), **change})


@pytest.mark.parametrize(
    ("model_class", "overrides"),
    [
        (PuMerMeterModel, {}),
        (PuMerMeterForQuestionAnswering, {}),
        (PuMerMeterForVisualEntailment, {}),
        (PuMerMeterForImageAndTextRetrieval, {}),
        (PuMerMeterForImagesAndTextClassification, {"num_images": 2, "modality_type_vocab_size": 3}),
    ],
)
def test_parts_of_the_model(model_class, overrides):
    model = model_class(meter_config(**overrides))
    parts = {}
    for name, _ in model.named_parameters():
        parts.setdefault(model.parameter_group(name), set()).add(name.removeprefix("meter.").split(".")[0])
    assert parts["backbone"] == {"text_model", "vision_model", "token_type_embeddings"}
    assert parts["cross_modal"] == {"text_projection", "image_projection", "pairs", "text_pooler", "image_pooler"}
    assert parts.get("classifier", set()) <= {"classifier", "rank_output"}
    assert ("classifier" in parts) == (model_class is not PuMerMeterModel)


def test_weight_decay_leaves_norms_biases_cls_and_positions_alone():
    names = [name for name, parameter in PuMerMeterModel(meter_config()).named_parameters() if decays(name, parameter)]
    assert len(names) == len(set(names)) > 50
    assert all(name.endswith(".weight") for name in names)
    assert not [name for name in names if "norm" in name.lower() or "position" in name or "class_embedding" in name]


# processor and recipes


@pytest.fixture(scope="module")
def teacher():
    """A METER from scratch, as a recipe makes it, with its processor."""
    config = meter_config()
    values = {
        **CROSS,
        "text_config": {**config.text_config.to_dict(), "max_position_embeddings": 14},
        "vision_config": config.vision_config.to_dict(),
    }
    questions = ["how many red digits are there?", "what colour is the seven?"]
    args = ModelArguments(backbone="meter", config=values, image_mean=0.25, image_std=0.5)
    return build_teacher(args, ["yes", "no"], questions, max_text_length=20)


def test_a_recipe_builds_a_meter_from_scratch(teacher, tmp_path):
    model, processor = teacher
    assert model.config.id2label == {0: "yes", 1: "no"}
    assert model.config.max_text_length == processor.tokenizer.model_max_length == 20
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    model.save_pretrained(tmp_path)
    args = ModelArguments(backbone="meter", teacher=str(tmp_path))
    assert teacher_labels(args) == ["yes", "no"]
    reduction = schedule("pumer", "small")
    assert load_model(str(tmp_path), reduction).config.reduction == reduction


def test_the_processor_makes_squares(teacher, tmp_path):
    _, processor = teacher
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is PuMerMeterProcessor
    image = np.full((20, 40, 3), 255, dtype=np.uint8)
    image[:, 20:] = 0
    for each in (processor, loaded):
        batch = each(
            images=[image], text=["how many sevens?"], padding="max_length", max_length=12, return_tensors="pt"
        )
        assert set(batch) == {"input_ids", "attention_mask", "pixel_values"}
        assert batch["pixel_values"].shape == (1, 3, 16, 16)  # squeezed, not cropped: both halves are there
        torch.testing.assert_close(batch["pixel_values"][0, :, :, 2], torch.full((3, 16), 1.5), atol=0.05, rtol=0)
        torch.testing.assert_close(batch["pixel_values"][0, :, :, -3], torch.full((3, 16), -0.5), atol=0.05, rtol=0)


def test_auto_processor_knows_the_model_type(teacher, tmp_path):
    model, processor = teacher
    model.config.save_pretrained(tmp_path)
    processor.image_processor.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is PuMerMeterProcessor


def test_the_default_normalisation_is_that_of_clip(teacher):
    processor = PuMerMeterProcessor.from_tokenizer(RobertaTokenizer(), 32)
    assert list(processor.image_processor.image_mean) == [0.48145466, 0.4578275, 0.40821073]
    assert list(processor.image_processor.image_std) == [0.26862954, 0.26130258, 0.27577711]


def test_the_collator_leaves_resizing_to_the_processor(teacher):
    model, processor = teacher
    rows = [
        {"image": undecoded(size=size), "question": "how many?", "answers": ["no"], "origin": "here"}
        for size in ((50, 20), (16, 16))
    ]
    batch = VqaCollator(Encoder(processor).replace(max_text_length=12), ["yes", "no"])(rows)
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values", "labels"}
    assert batch["pixel_values"].shape == (2, 3, 16, 16)
    assert model(**batch).loss.isfinite()
    with pytest.raises(ValueError, match=r"data.keep_aspect_ratio=True: .* \(METER\)"):
        VqaDataArguments(keep_aspect_ratio=True).encoder(processor)


def test_a_processor_that_cuts_the_middle_keeps_no_aspect_ratio(teacher):
    processor = copy.deepcopy(teacher[1])
    square = {"height": 16, "width": 16}
    processor.image_processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)
    with pytest.raises(ValueError, match=r"data.keep_aspect_ratio=True: .* \(METER\)"):
        VqaDataArguments(keep_aspect_ratio=True).encoder(processor)


def test_position_embeddings_of_a_new_image_tower_tell_the_patches_apart():
    positions = FAMILIES["meter"].model().meter.vision_model.embeddings.position_embedding.weight
    assert torch.pdist(positions[1:]).min() > 0.1
    assert positions[0].abs().max() == 0
