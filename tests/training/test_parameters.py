import pytest
from tiny_models import FAMILIES

from pumer_hf import (
    PuMerViltForImageAndTextRetrieval,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForQuestionAnswering,
    PuMerViltForVisualEntailment,
    PuMerViltModel,
)
from pumer_hf.training.parameters import begin_reducer_stage, parameter_groups

LAYERS = (0, 1, 2)

# Names within the backbone. What is not here must not be in the model.
BACKBONE_DECAY = [
    "embeddings.text_embeddings.word_embeddings.weight",
    "embeddings.text_embeddings.token_type_embeddings.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.token_type_embeddings.weight",
]
BACKBONE_NO_DECAY = [
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "embeddings.text_embeddings.position_embeddings.weight",
    "embeddings.text_embeddings.LayerNorm.weight",
    "embeddings.text_embeddings.LayerNorm.bias",
    "embeddings.patch_embeddings.projection.bias",
]
LAYER_DECAY = [
    "attention.attention.query.weight",
    "attention.attention.key.weight",
    "attention.attention.value.weight",
    "attention.output.dense.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
]
LAYER_NO_DECAY = [
    "attention.attention.query.bias",
    "attention.attention.key.bias",
    "attention.attention.value.bias",
    "attention.output.dense.bias",
    "intermediate.dense.bias",
    "output.dense.bias",
    "layernorm_before.weight",
    "layernorm_before.bias",
    "layernorm_after.weight",
    "layernorm_after.bias",
]
CROSS_MODAL_DECAY = ["pooler.dense.weight"]
CROSS_MODAL_NO_DECAY = ["pooler.dense.bias", "layernorm.weight", "layernorm.bias"]

CLASSIFIER_DECAY = ["classifier.0.weight", "classifier.3.weight"]
CLASSIFIER_NO_DECAY = ["classifier.0.bias", "classifier.1.weight", "classifier.1.bias", "classifier.3.bias"]

MODELS = {
    "bare model": (PuMerViltModel, [], []),
    "question answering": (PuMerViltForQuestionAnswering, CLASSIFIER_DECAY, CLASSIFIER_NO_DECAY),
    "visual entailment": (PuMerViltForVisualEntailment, CLASSIFIER_DECAY, CLASSIFIER_NO_DECAY),
    "nlvr2": (PuMerViltForImagesAndTextClassification, CLASSIFIER_DECAY, CLASSIFIER_NO_DECAY),
    "retrieval": (PuMerViltForImageAndTextRetrieval, ["rank_output.weight"], ["rank_output.bias"]),
}
each_model = pytest.mark.parametrize("case", MODELS)


@pytest.fixture
def build(make_model):
    def build_case(case):
        model_class, *_ = MODELS[case]
        extra = {"num_images": 2, "modality_type_vocab_size": 3} if case == "nlvr2" else {}
        return make_model(model_class=model_class, **extra)

    return build_case


def expected_groups(case, rates, weight_decay):
    _, head_decay, head_no_decay = MODELS[case]
    prefix = "" if case == "bare model" else "vilt."
    layers = [f"encoder.layer.{layer}." for layer in LAYERS]
    cross_modal_decay = CROSS_MODAL_DECAY + [layer + name for layer in layers for name in LAYER_DECAY]
    cross_modal_no_decay = CROSS_MODAL_NO_DECAY + [layer + name for layer in layers for name in LAYER_NO_DECAY]
    parts = [
        ("backbone", [prefix + name for name in BACKBONE_DECAY], [prefix + name for name in BACKBONE_NO_DECAY]),
        (
            "cross_modal",
            [prefix + name for name in cross_modal_decay],
            [prefix + name for name in cross_modal_no_decay],
        ),
        ("classifier", head_decay, head_no_decay),
    ]
    expected = {}
    for part, decay, no_decay in parts:
        expected |= dict.fromkeys(decay, (rates[part], weight_decay))
        expected |= dict.fromkeys(no_decay, (rates[part], 0.0))
    return expected


def grouped(model, groups):
    """Learning rate and weight decay by parameter name; fails for a parameter in several groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in found, f"{name} is in two groups"
            found[name] = group["lr"], group["weight_decay"]
    return found


@each_model
def test_every_parameter_has_the_rate_and_the_decay_of_its_part(case, build, make_args):
    model = build(case)
    args = make_args(
        learning_rate=1e-5, cross_modal_learning_rate=5e-5, classifier_learning_rate=1e-4, weight_decay=0.01
    )
    rates = {"backbone": 1e-5, "cross_modal": 5e-5, "classifier": 1e-4}
    assert grouped(model, parameter_groups(model, args)) == expected_groups(case, rates, 0.01)


@each_model
def test_parts_without_a_rate_of_their_own_use_learning_rate(case, build, make_args):
    model = build(case)
    found = grouped(model, parameter_groups(model, make_args(learning_rate=3e-4, weight_decay=0.1)))
    assert found == expected_groups(case, dict.fromkeys(("backbone", "cross_modal", "classifier"), 3e-4), 0.1)


def test_a_rate_of_zero_is_a_rate(build, make_args):
    model = build("question answering")
    args = make_args(learning_rate=1e-3, cross_modal_learning_rate=0.0, classifier_learning_rate=0.0)
    found = grouped(model, parameter_groups(model, args))
    assert found["vilt.pooler.dense.weight"][0] == found["classifier.0.weight"][0] == 0.0
    assert found["vilt.embeddings.cls_token"][0] == 1e-3


@each_model
def test_frozen_parameters_are_in_no_group(case, build, make_args):
    model = build(case)
    frozen = [name for name, _ in model.named_parameters() if ".layer.1." in name or name.endswith("cls_token")]
    assert len(frozen) == 17
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    found = grouped(model, parameter_groups(model, make_args(weight_decay=0.01)))
    expected = expected_groups(case, dict.fromkeys(("backbone", "cross_modal", "classifier"), 0.05), 0.01)
    assert found == {name: values for name, values in expected.items() if name not in frozen}


def test_a_part_that_is_frozen_altogether_makes_no_group(build, make_args):
    model = build("question answering")
    model.vilt.requires_grad_(False)
    args = make_args(classifier_learning_rate=1e-4, weight_decay=0.01)
    groups = parameter_groups(model, args)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 0.01), (1e-4, 0.0)]
    assert grouped(model, groups).keys() == {*CLASSIFIER_DECAY, *CLASSIFIER_NO_DECAY}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_all_but_the_reducer_and_the_head_can_be_frozen(family):
    model = family.model({"method": "tip", "layers": [1], "prune_ratio": 0.5})
    begin_reducer_stage(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        name for name, _ in model.named_parameters() if ".reducer." in name or name.startswith("classifier.")
    }
    assert any(".reducer." in name for name in learning)
    assert model.reduction.at("layers").continuity_weight == 0
