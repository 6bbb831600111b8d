"""What transformers expects of every model; its own test suite checks the same, and more."""

import inspect

import pytest
import torch
from tiny_models import FAMILIES, schedule, text_inputs

from pumer_hf.models.encoders.outputs import ATTENTIONS

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@each_family
@pytest.mark.parametrize("kind", ["base_class", "model_class", "entailment_class", "retrieval_class", "images_class"])
def test_the_main_input_is_the_first(family, kind):
    model_class = getattr(family, kind)
    assert model_class.main_input_name == list(inspect.signature(model_class.forward).parameters)[1] == "input_ids"


@each_family
@pytest.mark.parametrize("reduction", [None, schedule("pumer", "small")], ids=["none", "pumer"])
def test_attentions_and_hidden_states_keep_their_gradients(family, reduction):
    outputs = family.model(reduction)(**family.inputs(), output_attentions=True, output_hidden_states=True)
    kept = [*outputs.hidden_states[:4], *(outputs[name][0] for name in ATTENTIONS if name in outputs)]
    for value in kept:
        value.retain_grad()
    outputs.logits[0, 0].backward()
    assert all(value.grad.any() for value in kept)


@each_family
@pytest.mark.parametrize("reduction", [None, schedule("pumer", "small")], ids=["none", "pumer"])
@pytest.mark.parametrize(
    ("wanted", "indices"), [([0, 2, -1], {0, 2, 4}), (3, {3}), (-2, {3}), ([9], set()), (True, {0, 1, 2, 3, 4})]
)
def test_hidden_states_of_chosen_layers(family, reduction, wanted, indices):
    model, inputs = family.model(reduction), family.inputs()
    everything = model(**inputs, output_hidden_states=True).hidden_states
    found = model(**inputs, output_hidden_states=wanted).hidden_states
    assert {index for index, states in enumerate(found) if states is not None} == indices
    assert all(torch.equal(found[index], everything[index]) for index in indices)
    assert len(found) == len(everything) == 5


@each_family
@pytest.mark.parametrize("nothing", [False, []])
def test_no_hidden_states_unless_asked_for(family, nothing):
    assert family.model()(**family.inputs(), output_hidden_states=nothing).hidden_states is None


@each_family
def test_several_images_have_a_tuple_each(family):
    config = family.config(num_images=2, modality_type_vocab_size=3)
    inputs = family.inputs()
    for name in inputs.keys() & {"pixel_values", "pixel_mask"}:
        inputs[name] = torch.stack([inputs[name], inputs[name]], dim=1)
    outputs = family.images_class(config)(**inputs, output_attentions=True, output_hidden_states=[0])
    for name in ("hidden_states", *(name for name in ATTENTIONS if name in outputs)):
        assert [len(of_image) for of_image in outputs[name]] == [4 + (name == "hidden_states")] * 2
    assert outputs.hidden_states[1][1] is None
    assert ("cross_attentions" in outputs) == (family is FAMILIES["meter"])


@each_family
@pytest.mark.parametrize("method", ["pumer", "pyramid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_picks_the_same_tokens_with_every_kernel(family, dtype, method):
    """A model that attends to all tokens alike: their saliencies all but tie."""
    same = []
    for seed in range(4):
        pixel_values = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).to(dtype)
        inputs = {**text_inputs(torch.Generator().manual_seed(seed)), "pixel_values": pixel_values}
        alike = {"initializer_range": 0.02, "layer_norm_eps": 1.0, "image_size": 32}
        model = family.model({**schedule(method, "small"), "layers": [1, 2]}, seed=seed, **alike).to(dtype)
        traces = []
        for kernel in ("sdpa", "eager"):
            model.set_attn_implementation(kernel)
            traces.append(model(**inputs).reduction)
        same.extend((one.keep == other.keep).all(dim=1) for one, other in zip(*traces, strict=True))
    assert torch.cat(same).float().mean() > 0.9
