"""What transformers expects of every model; its own test suite checks the same, and more."""

import inspect

import pytest
from tiny_models import FAMILIES

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@each_family
@pytest.mark.parametrize("kind", ["base_class", "model_class", "entailment_class", "retrieval_class", "images_class"])
def test_the_main_input_is_the_first(family, kind):
    model_class = getattr(family, kind)
    assert model_class.main_input_name == list(inspect.signature(model_class.forward).parameters)[1] == "input_ids"
