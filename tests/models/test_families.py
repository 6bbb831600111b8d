"""What every model family offers, whatever its reducer: heads, outputs, registration. Reducers: `test_contract.py`."""

import subprocess
import sys

import pytest
import torch
from tiny_models import FAMILIES, schedule
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForVisualQuestionAnswering,
)

import pumer_hf

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def test_every_public_name_loads():
    for name in pumer_hf.__all__:
        assert getattr(pumer_hf, name).__name__ == name
        assert name in dir(pumer_hf)
    with pytest.raises(AttributeError, match="no attribute 'PuMerVilt'"):
        pumer_hf.PuMerVilt  # noqa: B018


@each_family
def test_registration(family):
    config = family.config()
    assert AutoConfig.for_model(config.model_type).__class__ is type(config)
    assert type(AutoModel.from_config(config)) is family.base_class
    assert type(AutoModelForVisualQuestionAnswering.from_config(config)) is family.model_class


@pytest.mark.integration  # a process of its own
def test_auto_classes_know_the_models_in_a_new_process(tmp_path):
    for name, family in FAMILIES.items():
        family.model(schedule("pumer", "small")).save_pretrained(tmp_path / name)
    code = """
import sys
import pumer_hf
from transformers import AutoModel, AutoModelForVisualQuestionAnswering

for folder in sys.argv[1:]:
    for auto_class in (AutoModel, AutoModelForVisualQuestionAnswering):
        print(type(auto_class.from_pretrained(folder)).__name__)
"""
    words = [sys.executable, "-c", code, *(str(tmp_path / name) for name in FAMILIES)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    expected = [(family.base_class.__name__, family.model_class.__name__) for family in FAMILIES.values()]
    assert result.stdout.split() == [name for names in expected for name in names]


@each_family
def test_sdpa_and_eager_attention_agree(family, tmp_path):
    family.model(schedule("pumer", "small")).save_pretrained(tmp_path)
    logits = [
        family.model_class.from_pretrained(tmp_path, attn_implementation=name).eval()(**family.inputs()).logits
        for name in ("sdpa", "eager")
    ]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@each_family
def test_return_dict_false_gives_a_tuple(family):
    model = family.model()
    logits = model(**family.inputs(), return_dict=False)[0]
    assert torch.equal(logits, model(**family.inputs()).logits)


@each_family
@pytest.mark.parametrize("reduction", [None, schedule("pumer", "small")])
def test_hidden_states_have_the_lengths_of_their_layers(family, reduction):
    model = family.model(reduction)
    outputs = model(**family.inputs(), output_attentions=True, output_hidden_states=True)
    lengths = [9 + 17, *map(sum, model.output_lengths(9, 17))]
    assert [states.shape[1] for states in outputs.hidden_states] == lengths
    assert len(outputs.attentions) == len(lengths) - 1
    plain = model(**family.inputs())
    assert plain.attentions is None
    assert plain.hidden_states is None
    torch.testing.assert_close(outputs.logits, plain.logits, atol=1e-5, rtol=1e-5)


@each_family
def test_one_ratio_of_one_layer_can_be_set_alone(family):
    model = family.model(schedule("pumer", "small"))
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


@each_family
def test_set_reduction_names_a_layer_that_is_not_there(family):
    model = family.model()
    with pytest.raises(ValueError, match="layer 7, .*layers 0 to 3"):
        model.set_reduction({**schedule("pumer", "small"), "layers": [7]})
    assert model.reduction is None


@each_family
@pytest.mark.parametrize(("name", "value"), [("positions", "contiguous"), ("per_prompt", True), ("reread", True)])
def test_a_field_of_decoders_is_refused(family, name, value):
    part = {"method": "grid", "site": "inputs", "keep_ratio": 0.5, name: value}
    with pytest.raises(ValueError, match=f"reduction.{name}={value!r}: only decoder models"):
        family.config(reduction=part)
    with pytest.raises(ValueError, match=f"reduction.{name}={value!r}: only decoder models"):
        family.model().set_reduction(part)


@each_family
def test_set_reduction_none_switches_it_off(family):
    model = family.model(schedule("pumer", "small"))
    model.set_reduction(None)
    assert model(**family.inputs()).reduction == ()
    assert model.config.reduction is None


@each_family
@pytest.mark.parametrize("layout", ["texts", "images", "pairs"])
def test_retrieval_learns_to_rank(family, layout):
    torch.manual_seed(0)
    model = family.retrieval_class(family.config(reduction=schedule("pumer", "small")))
    inputs = {name: value for name, value in family.inputs().items() if name != "pixel_mask"}
    if layout in ("texts", "pairs"):
        inputs["input_ids"] = torch.randint(1, 40, (3, 4, 9))
        inputs["attention_mask"] = torch.ones(3, 4, 9, dtype=torch.long)
    if layout in ("images", "pairs"):
        inputs["pixel_values"] = torch.randn(3, 4, 3, 16, 16)
    labels = torch.tensor([2, 0, 3])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        outputs = model(**inputs, labels=labels)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        losses.append(outputs.loss.item())
    assert outputs.logits.shape == (3, 4)
    assert losses[-1] < 0.2 < losses[0]
    assert model(**inputs).logits.argmax(dim=-1).tolist() == labels.tolist()


@each_family
def test_retrieval_scores_a_candidate_as_if_it_were_alone(family):
    torch.manual_seed(0)
    model = family.retrieval_class(family.config()).eval()
    ids, pixels = torch.randint(1, 40, (2, 3, 9)), torch.randn(2, 3, 16, 16)
    together = model(input_ids=ids, pixel_values=pixels).logits
    for query in range(2):
        for candidate in range(3):
            alone = model(input_ids=ids[query, candidate].unsqueeze(0), pixel_values=pixels[query].unsqueeze(0)).logits
            torch.testing.assert_close(alone[0, 0], together[query, candidate], atol=1e-5, rtol=1e-5)


@each_family
def test_retrieval_needs_candidates_to_train(family):
    model = family.retrieval_class(family.config())
    with pytest.raises(ValueError, match="at least two"):
        model(**family.inputs(), labels=torch.zeros(3, dtype=torch.long))


@each_family
def test_two_images_are_traced_apart_and_train(family):
    torch.manual_seed(0)
    config = family.config(num_images=2, modality_type_vocab_size=3, reduction=schedule("pumer", "small"))
    model = family.images_class(config)
    inputs = family.inputs()
    for name in inputs.keys() & {"pixel_values", "pixel_mask"}:
        inputs[name] = torch.stack([inputs[name], inputs[name].flip(0)], dim=1)
    outputs = model(**inputs, labels=torch.tensor([0, 1, 1]))
    outputs.loss.backward()
    assert [trace.image_index for trace in outputs.reduction] == [0, 1]
    assert all(parameter.grad is not None for parameter in model.parameters())


@each_family
@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"num_images": -1}, "config.num_images=-1"), ({"num_images": 2}, "modality_type_vocab_size=2")],
)
def test_two_images_need_a_config_for_them(family, overrides, message):
    with pytest.raises(ValueError, match=message):
        family.images_class(family.config(**overrides))


@each_family
def test_one_image_where_two_are_expected_is_an_error(family):
    model = family.images_class(family.config(num_images=2, modality_type_vocab_size=3))
    with pytest.raises(ValueError, match=r"\(3, 3, 16, 16\): .*\(batch, 2, channels"):
        model(**family.inputs())


@each_family
def test_entailment_trains(family):
    model = family.entailment_class(family.config(num_labels=3))
    outputs = model(**family.inputs(), labels=torch.tensor([0, 1, 2]))
    outputs.loss.backward()
    assert outputs.logits.shape == (3, 3)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, torch.arange(3)))


@each_family
def test_vqa_loss_sums_over_labels(family):
    model, labels = family.model(), torch.rand(3, 5)
    outputs = model(**family.inputs(), labels=labels)
    each = F.binary_cross_entropy_with_logits(outputs.logits, labels)
    torch.testing.assert_close(outputs.loss, each * 5)


@each_family
def test_inputs_embeds_equal_input_ids(family):
    model, inputs = family.model(), family.inputs()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    assert torch.equal(model(inputs_embeds=embeds, **rest).logits, model(**inputs).logits)


@each_family
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own, in torch 2.13
@pytest.mark.parametrize("reduction", [None, schedule("pumer", "small")])
def test_compiles_with_inductor(family, reduction):
    # small weights: with those of `tiny_models`, gradients reach 150, and rounding shows
    model, inputs = family.model(reduction, initializer_range=0.1), family.inputs()
    labels = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    expected = model(**inputs, labels=labels)
    expected.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    found = torch.compile(model, fullgraph=True)(**inputs, labels=labels)
    found.loss.backward()
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-4, rtol=1e-3)


@each_family
@pytest.mark.parametrize("head", ["entailment_class", "retrieval_class", "images_class"])
def test_an_auto_class_loads_the_head_that_the_checkpoint_names(family, head, tmp_path):
    model_class = getattr(family, head)
    several = {"num_images": 2, "modality_type_vocab_size": 3} if head == "images_class" else {}
    model_class(family.config(**several)).save_pretrained(tmp_path)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is model_class
