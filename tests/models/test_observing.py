"""What `observe` sees of an unreduced model."""

import pytest
import torch
from tiny_models import FAMILIES

from pumer_hf.models.observing import observe

PUMER = {"method": "pumer", "layers": [0, 2], "prune_ratio": 0.3, "image_merge_ratio": 0.3, "text_merge_ratio": 0.3}


def layers_of(name, model):
    return model.base_model.encoder.layer if name == "vilt" else model.base_model.pairs


def attention_by_hand(name, outputs, layer, inputs, mask):
    """Eq. 1 from the probabilities that the model returns, over the patches alone."""
    text = inputs["attention_mask"].shape[1]
    block = outputs.attentions[layer][:, :, :text, text:] if name == "vilt" else outputs.cross_attentions[layer]
    rows = []
    for example in range(len(block)):
        words = inputs["attention_mask"][example].bool()
        mean = block[example][:, words].mean(dim=(0, 1))[1:] * mask[example, 1:]
        rows.append(mean / mean.sum())
    return torch.stack(rows)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("reduction", [None, PUMER], ids=["unreduced", "pumer"])
def test_the_attention_is_that_of_the_unreduced_model(name, reduction):
    family = FAMILIES[name]
    model, inputs = family.model(reduction), family.inputs()
    seen = observe(model, inputs, [2, 0])
    model.set_reduction(None)
    with torch.no_grad():
        outputs = model(**inputs, output_attentions=True)
    mask = seen.pair.image.mask
    assert mask.shape[1] == family.num_image
    assert sorted(seen.attention) == [0, 2]
    for layer, attention in seen.attention.items():
        assert attention.dtype == torch.float32
        torch.testing.assert_close(attention, attention_by_hand(name, outputs, layer, inputs, mask))
        torch.testing.assert_close(attention.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pair_is_what_comes_into_the_site(name):
    family = FAMILIES[name]
    model, inputs = family.model(), family.inputs()
    pair = observe(model, inputs, []).pair
    with torch.no_grad():
        first = model(**inputs, output_hidden_states=True).hidden_states[0]
    torch.testing.assert_close(pair.joined(), first)
    assert torch.equal(pair.text.mask, inputs["attention_mask"].bool())
    assert not pair.joined().requires_grad


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layers", [[], [0], [2, 1]])
def test_only_the_layers_up_to_the_last_wanted_one_run(name, layers):
    family = FAMILIES[name]
    model, inputs = family.model(PUMER), family.inputs()
    ran = []
    for index, layer in enumerate(layers_of(name, model)):
        layer.register_forward_hook(lambda *args, index=index: ran.append(index))
    observe(model, inputs, layers)
    assert ran == list(range(max(layers, default=-1) + 1))
    ran.clear()
    with torch.no_grad():
        model(**inputs)
    assert ran == [0, 1, 2, 3]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_has_its_own_reducers_again(name):
    model = FAMILIES[name].model(PUMER)
    reducers = model.token_reduction.reducers
    observe(model, FAMILIES[name].inputs(), [1])
    assert model.token_reduction.reducers == reducers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"site": "roof"}, "site='roof'"),
        ({"site": "tower"}, "tower_layer=None"),
        ({"layers": [7]}, "layers"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    family = FAMILIES["meter"]
    with pytest.raises(ValueError, match=message):
        observe(family.model(), family.inputs(), **{"layers": [0], **values})


def test_a_model_in_training_is_refused():
    family = FAMILIES["vilt"]
    with pytest.raises(ValueError, match="eval"):
        observe(family.model().train(), family.inputs(), [0])
