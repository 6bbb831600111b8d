"""lookahead at work in a model: how its scorer learns, also with other methods behind it."""

import pytest
import torch
from tiny_models import FAMILIES, gradients, inputs_of, schedule

BEHIND = {
    "nothing": [],
    "pumer": [schedule("pumer", "small")],
    "tome": [schedule("tome", "small")],
}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def chosen(**changes):
    return {"method": "lookahead", "site": "inputs", "keep_ratio": 0.5, "rank": 8, **changes}


@each_family
@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("merge_rest", [False, True])
def test_a_scorer_that_learns_changes_no_logit(family, behind, merge_rest):
    model, inputs = family.model([chosen(merge_rest=merge_rest), *behind]), inputs_of(family)
    expected = model(**inputs).logits
    torch.testing.assert_close(model.train()(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    found = gradients(model, inputs)
    assert all(found[name].abs().sum() > 0 for name in found if ".scorer.image." in name)


@each_family
def test_a_frozen_scorer_adds_nothing_to_the_attention(family):
    model, inputs = family.model(chosen()).train(), inputs_of(family)
    model.base_model.inputs.requires_grad_(False)
    weights = []
    attend = type(model.base_model.kernel).attend
    model.base_model.kernel.attend = lambda *given: (
        weights.append(given[1].weight) or attend(model.base_model.kernel, *given)
    )
    model(**inputs)
    assert weights
    assert all(weight is None for weight in weights)
