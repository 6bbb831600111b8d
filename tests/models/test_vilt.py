"""ViLT: stock parity and what is its own. The contract that all families share is in `test_contract.py`."""

import subprocess
import sys

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

import pumer_hf
from pumer_hf.models import vilt
from pumer_hf.models.vilt import (
    PuMerViltConfig,
    PuMerViltForImageAndTextRetrieval,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForQuestionAnswering,
    PuMerViltForVisualEntailment,
    PuMerViltModel,
    even_sample,
    resize_weights,
)

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


def test_auto_classes_know_the_model_in_a_new_process(tmp_path):
    FAMILIES["vilt"].model(schedule("pumer", "small")).save_pretrained(tmp_path)
    code = (
        "import pumer_hf; from transformers import AutoModel, AutoModelForVisualQuestionAnswering as Vqa;"
        f"print(type(AutoModel.from_pretrained(r'{tmp_path}')).__name__,"
        f"type(Vqa.from_pretrained(r'{tmp_path}')).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["PuMerViltModel", "PuMerViltForQuestionAnswering"]


def test_registration():
    config = vilt_config()
    assert AutoConfig.for_model("pumer_vilt").__class__ is PuMerViltConfig
    assert type(AutoModel.from_config(config)) is PuMerViltModel
    assert type(AutoModelForVisualQuestionAnswering.from_config(config)) is PuMerViltForQuestionAnswering


def test_every_public_name_loads():
    for name in pumer_hf.__all__:
        assert getattr(pumer_hf, name).__name__ == name
        assert name in dir(pumer_hf)
    with pytest.raises(AttributeError, match="no attribute 'PuMerVilt'"):
        pumer_hf.PuMerVilt  # noqa: B018


def test_patch_p_is_token_1_plus_p_in_raster_order():
    model = FAMILIES["vilt"].model()
    images = torch.zeros(16, 3, 16, 16)
    for patch in range(16):
        row, column = divmod(patch, 4)
        images[patch, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    embedded, _ = model.vilt.embeddings.embed_image(images, None)
    blank, _ = model.vilt.embeddings.embed_image(torch.zeros(1, 3, 16, 16), None)
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


def test_sdpa_and_eager_attention_agree(tmp_path):
    FAMILIES["vilt"].model(schedule("pumer", "small")).save_pretrained(tmp_path)
    logits = [
        PuMerViltForQuestionAnswering.from_pretrained(tmp_path, attn_implementation=name)
        .eval()(**vilt_inputs())
        .logits
        for name in ("sdpa", "eager")
    ]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)


def test_return_dict_false_gives_a_tuple():
    model = FAMILIES["vilt"].model()
    logits = model(**vilt_inputs(), return_dict=False)[0]
    assert torch.equal(logits, model(**vilt_inputs()).logits)


def test_one_ratio_of_one_layer_can_be_set_alone():
    model = FAMILIES["vilt"].model(schedule("pumer", "small"))
    model.set_reduction(
        {
            "method": "pumer",
            "layers": [0, 2],
            "prune_ratio": [0, 0.5],
            "image_merge_ratio": 0.0,
            "text_merge_ratio": 0.0,
        }
    )
    assert model.output_lengths(9, 17) == [(9, 17), (9, 17), (9, 9), (9, 9)]


def test_set_reduction_names_a_layer_that_is_not_there():
    model = FAMILIES["vilt"].model()
    with pytest.raises(ValueError, match="names layer 7, but the model has layers 0 to 3"):
        model.set_reduction({**schedule("pumer", "small"), "layers": [7]})
    assert model.reduction is None


def test_set_reduction_none_switches_it_off():
    model = FAMILIES["vilt"].model(schedule("pumer", "small"))
    model.set_reduction(None)
    assert model(**vilt_inputs()).reduction == ()
    assert model.config.reduction is None


@pytest.mark.parametrize("layout", ["texts", "images", "pairs"])
def test_retrieval_learns_to_rank(layout):
    torch.manual_seed(0)
    model = PuMerViltForImageAndTextRetrieval(vilt_config(reduction=schedule("pumer", "small")))
    inputs = {name: value for name, value in vilt_inputs().items() if name != "pixel_mask"}
    if layout in ("texts", "pairs"):
        inputs["input_ids"] = torch.randint(1, 40, (3, 4, 9))
        inputs["attention_mask"] = torch.ones(3, 4, 9, dtype=torch.long)
    if layout in ("images", "pairs"):
        inputs["pixel_values"] = torch.randn(3, 4, 3, 16, 16)
    labels = torch.tensor([2, 0, 3])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        outputs = model(**inputs, labels=labels)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        losses.append(outputs.loss.item())
    assert outputs.logits.shape == (3, 4)
    assert losses[-1] < 0.2 < losses[0]
    assert model(**inputs).logits.argmax(dim=-1).tolist() == labels.tolist()


def test_retrieval_scores_a_candidate_as_if_it_were_alone():
    torch.manual_seed(0)
    model = PuMerViltForImageAndTextRetrieval(vilt_config()).eval()
    ids, pixels = torch.randint(1, 40, (2, 3, 9)), torch.randn(2, 3, 16, 16)
    together = model(input_ids=ids, pixel_values=pixels).logits
    for query in range(2):
        for candidate in range(3):
            alone = model(input_ids=ids[query, candidate].unsqueeze(0), pixel_values=pixels[query].unsqueeze(0)).logits
            torch.testing.assert_close(alone[0, 0], together[query, candidate])


def test_retrieval_needs_candidates_to_train():
    model = PuMerViltForImageAndTextRetrieval(vilt_config())
    with pytest.raises(ValueError, match="at least two"):
        model(**vilt_inputs(), labels=torch.zeros(3, dtype=torch.long))


def test_two_images_are_traced_apart_and_train():
    torch.manual_seed(0)
    config = vilt_config(num_images=2, modality_type_vocab_size=3, reduction=schedule("pumer", "small"))
    model = PuMerViltForImagesAndTextClassification(config)
    inputs = vilt_inputs()
    for name in ("pixel_values", "pixel_mask"):
        inputs[name] = torch.stack([inputs[name], inputs[name].flip(0)], dim=1)
    outputs = model(**inputs, labels=torch.tensor([0, 1, 1]))
    outputs.loss.backward()
    assert [trace.image_index for trace in outputs.reduction] == [0, 1]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"num_images": -1}, "config.num_images=-1"), ({"num_images": 2}, "modality_type_vocab_size=2 is too small")],
)
def test_two_images_need_a_config_for_them(overrides, message):
    with pytest.raises(ValueError, match=message):
        PuMerViltForImagesAndTextClassification(vilt_config(**overrides))


def test_entailment_trains():
    model = PuMerViltForVisualEntailment(vilt_config(num_labels=3))
    outputs = model(**vilt_inputs(), labels=torch.tensor([0, 1, 2]))
    outputs.loss.backward()
    assert outputs.logits.shape == (3, 3)
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, torch.arange(3)))


def test_vqa_loss_sums_over_labels():
    model, labels = FAMILIES["vilt"].model(), torch.rand(3, 5)
    outputs = model(**vilt_inputs(), labels=labels)
    each = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
    torch.testing.assert_close(outputs.loss, each * 5)


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


def test_inputs_embeds_equal_input_ids():
    model, inputs = FAMILIES["vilt"].model(), vilt_inputs()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    assert torch.equal(model(inputs_embeds=embeds, **rest).logits, model(**inputs).logits)


def test_resize_weights_equal_interpolate():
    grid = torch.randn(1, 1, 5, 1)
    for size in (1, 2, 3, 5, 9):
        expected = torch.nn.functional.interpolate(grid, size=(size, 1), mode="bilinear", align_corners=True)
        found = resize_weights(torch.tensor([size]), size, 5)[0] @ grid.flatten()
        torch.testing.assert_close(found, expected.flatten())


def test_even_sample_spreads_over_the_real_patches():
    patches = torch.arange(8.0).view(1, 8, 1).expand(2, -1, -1)
    mask = torch.tensor([[True] * 8, [True, False, True, True, False, False, False, False]])
    sampled, kept = even_sample(patches, mask, 4)
    assert sampled[0].flatten().tolist() == [0, 2, 4, 6]
    assert sampled[1, :3].flatten().tolist() == [0, 2, 3]
    assert kept.sum(dim=1).tolist() == [4, 3]


def test_max_image_length_limits_the_tokens():
    model = PuMerViltModel(vilt_config(max_image_length=6)).eval()
    assert model(**vilt_inputs()).last_hidden_state.shape[1] == 9 + 1 + 6


def test_position_embeddings_of_a_new_model_tell_the_patches_apart():
    positions = FAMILIES["vilt"].model().vilt.embeddings.position_embeddings[0, 1:]
    assert torch.pdist(positions).min() > 0.1
    assert vilt.sine_cosine_positions(2, 3, 10).shape == (6, 10)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", [None, schedule("pumer", "small")])
def test_compiles_with_inductor(reduction):
    model, inputs = FAMILIES["vilt"].model(reduction), vilt_inputs()
    expected = model(**inputs, labels=torch.rand(3, 5, generator=torch.Generator().manual_seed(0)))
    expected.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    found = torch.compile(model, fullgraph=True)(
        **inputs, labels=torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    )
    found.loss.backward()
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3)
