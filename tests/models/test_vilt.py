"""ViLT: stock parity and what is its own. The contract that all families share is in `test_contract.py`."""

import pytest
import torch
import transformers
from tiny_models import FAMILIES, schedule, vilt_config, vilt_inputs
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    BertTokenizer,
    ViltConfig,
    ViltImageProcessorPil,
    ViltProcessor,
)

from pumer_hf.models.encoders.embeddings import sine_cosine_positions
from pumer_hf.models.encoders.inputs import INPUT_DIMS
from pumer_hf.models.encoders.vilt import (
    PuMerViltConfig,
    PuMerViltForImageAndTextRetrieval,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForQuestionAnswering,
    PuMerViltModel,
)
from pumer_hf.models.encoders.vilt.embeddings import even_sample, resize_weights

TINY = {name: value for name, value in vilt_config().to_dict().items() if name not in ("model_type", "reduction")}
STOCK = {
    "ViltModel": PuMerViltModel,
    "ViltForQuestionAnswering": PuMerViltForQuestionAnswering,
    "ViltForImageAndTextRetrieval": PuMerViltForImageAndTextRetrieval,
    "ViltForImagesAndTextClassification": PuMerViltForImagesAndTextClassification,
}


def stock_model(name, tmp_path, **overrides):
    """A stock model with all parameters random, saved to `tmp_path`."""
    torch.manual_seed(1)
    values = {**TINY, "modality_type_vocab_size": 3, "num_images": 2, **overrides}
    model = getattr(transformers, name)(ViltConfig(**values)).eval()
    for parameter in model.parameters():  # stock starts its position embeddings at 0, where order does not matter
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    return model


def output_of(outputs):
    return outputs.logits if "logits" in outputs else outputs.pooler_output


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("padded", [True, False])
def test_a_stock_checkpoint_loads_and_gives_the_stock_logits(name, padded, tmp_path):
    stock = stock_model(name, tmp_path)
    ours, report = STOCK[name].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert ours.config.model_type == "pumer_vilt"
    inputs = vilt_inputs()
    if not padded:
        del inputs["pixel_mask"], inputs["attention_mask"]
    if name == "ViltForImagesAndTextClassification":
        for key in ("pixel_values", "pixel_mask"):
            if key in inputs:
                inputs[key] = torch.stack(
                    [inputs[key], inputs[key].flip(-1) if key == "pixel_values" else inputs[key]], 1
                )
    with torch.no_grad():
        expected, found = output_of(stock(**inputs)), output_of(ours.eval()(**inputs))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(24, 16), (8, 20), (4, 4), (30, 18)])
def test_images_of_other_sizes_give_the_stock_logits(height, width, tmp_path):
    stock = stock_model("ViltForQuestionAnswering", tmp_path)
    ours = PuMerViltForQuestionAnswering.from_pretrained(tmp_path).eval()
    inputs = {name: value for name, value in vilt_inputs().items() if name != "pixel_mask"}
    inputs["pixel_values"] = torch.randn(3, 3, height, width)
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs).logits, stock(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_ours_loads_in_the_stock_class(tmp_path):
    model = FAMILIES["vilt"].model()
    model.save_pretrained(tmp_path)
    config = ViltConfig(**TINY)
    stock = transformers.ViltForQuestionAnswering.from_pretrained(tmp_path, config=config).eval()
    inputs = vilt_inputs()
    torch.testing.assert_close(model(**inputs).logits, stock(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_a_stock_folder_loads_with_a_reduction_and_its_processor(tmp_path):
    stock_model("ViltForQuestionAnswering", tmp_path)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it")
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    ViltProcessor(ViltImageProcessorPil(size={"shortest_edge": 16}, size_divisor=4), tokenizer).save_pretrained(
        tmp_path
    )
    model = PuMerViltForQuestionAnswering.from_pretrained(tmp_path, reduction=schedule("pumer", "small"))
    processor = AutoProcessor.from_pretrained(tmp_path)
    image = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8).numpy()
    outputs = model(**processor(images=image, text="what is it", return_tensors="pt"))
    assert len(outputs.reduction) == 1
    model.save_pretrained(tmp_path / "ours")
    processor.save_pretrained(tmp_path / "ours")
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "ours"), ViltProcessor)
    assert AutoConfig.from_pretrained(tmp_path / "ours").reduction == model.config.reduction


def test_registration():
    config = vilt_config()
    assert AutoConfig.for_model("pumer_vilt").__class__ is PuMerViltConfig
    assert type(AutoModel.from_config(config)) is PuMerViltModel
    assert type(AutoModelForVisualQuestionAnswering.from_config(config)) is PuMerViltForQuestionAnswering


def test_patch_p_is_token_1_plus_p_in_raster_order():
    model = FAMILIES["vilt"].model()
    images = torch.zeros(16, 3, 16, 16)
    for patch in range(16):
        row, column = divmod(patch, 4)
        images[patch, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    nothing = dict.fromkeys(INPUT_DIMS)
    embedded, *_ = model.vilt.embeddings.embed_image(nothing | {"pixel_values": images})
    blank, *_ = model.vilt.embeddings.embed_image(nothing | {"pixel_values": torch.zeros(1, 3, 16, 16)})
    changed = (embedded - blank).abs().sum(dim=-1) > 1e-6
    assert changed.nonzero().tolist() == [[patch, 1 + patch] for patch in range(16)]


def test_saliency_is_the_text_to_image_attention_of_the_layer():
    model = FAMILIES["vilt"].model(schedule("pumer", "small"))
    inputs = vilt_inputs()
    outputs = model(**inputs, output_attentions=True)
    text_to_image = outputs.attentions[1][:, :, :9, 9:]  # the schedule reduces at layer 1
    weight = inputs["attention_mask"][:, None, :, None]
    expected = (text_to_image * weight).sum(dim=(1, 2)) / (2 * inputs["attention_mask"].sum(dim=1, keepdim=True))
    torch.testing.assert_close(outputs.reduction[0].saliency, expected)


@pytest.mark.parametrize("reduction", [None, schedule("pumer", "small")])
def test_attentions_and_hidden_states_have_the_lengths_of_their_layers(reduction):
    model = FAMILIES["vilt"].model(reduction)
    outputs = model(**vilt_inputs(), output_attentions=True, output_hidden_states=True)
    lengths = [9 + 17, *map(sum, model.output_lengths(9, 17))]
    assert [states.shape[1] for states in outputs.hidden_states] == lengths
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(3, 2, n, n) for n in lengths[:-1]]
    plain = model(**vilt_inputs())
    assert plain.attentions is None
    assert plain.hidden_states is None
    torch.testing.assert_close(outputs.logits, plain.logits, atol=1e-5, rtol=1e-5)
    for weights in outputs.attentions:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "either input_ids or inputs_embeds"),
        ({"pixel_values": None}, "give pixel_values"),
        ({"pixel_values": torch.zeros(2, 3, 16, 16), "pixel_mask": None}, "3 texts, but 2 images"),
        ({"pixel_values": torch.zeros(3, 1, 16, 16)}, r"pixel_values has shape \(3, 1, 16, 16\)"),
        ({"labels": torch.zeros(3)}, r"labels has shape \(3,\): soft targets of shape \(3, 5\)"),
        ({"input_ids": torch.ones(3, 20, dtype=torch.long), "attention_mask": None}, "20 tokens, but config.max_pos"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        FAMILIES["vilt"].model()(**{**vilt_inputs(), **change})


def test_resize_weights_equal_interpolate():
    grid = torch.randn(1, 1, 5, 1)
    for size in (1, 2, 3, 5, 9):
        expected = torch.nn.functional.interpolate(grid, size=(size, 1), mode="bilinear", align_corners=True)
        found = resize_weights(torch.tensor([size]), size, 5)[0] @ grid.flatten()
        torch.testing.assert_close(found, expected.flatten())


def test_even_sample_spreads_over_the_real_patches():
    mask = torch.tensor([[True] * 8, [True, False, True, True, False, False, False, False]])
    sampled, kept = even_sample(mask, 4)
    assert sampled[0].tolist() == [0, 2, 4, 6]
    assert sampled[1, :3].tolist() == [0, 2, 3]
    assert kept.sum(dim=1).tolist() == [4, 3]


def test_even_sample_of_many_patches_stays_in_raster_order():
    mask = torch.rand(2, 400, generator=torch.Generator().manual_seed(0)) < 0.6
    sampled, kept = even_sample(mask, 300)
    for real, index, is_real in zip(mask, sampled.tolist(), kept, strict=True):
        in_order = real.nonzero().flatten().tolist()
        assert index[: len(in_order)] == in_order
        assert is_real.sum() == len(in_order) < 300


def test_max_image_length_limits_the_tokens():
    model = PuMerViltModel(vilt_config(max_image_length=6)).eval()
    assert model(**vilt_inputs()).last_hidden_state.shape[1] == 9 + 1 + 6


def test_position_embeddings_of_a_new_model_tell_the_patches_apart():
    positions = FAMILIES["vilt"].model().vilt.embeddings.position_embeddings[0, 1:]
    assert torch.pdist(positions).min() > 0.1
    assert sine_cosine_positions(2, 3, 10).shape == (6, 10)
