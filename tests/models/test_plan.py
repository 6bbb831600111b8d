"""What a model asks of its layers: the plans, and the kernel that all of its attention shares."""

import inspect
from types import FunctionType

import pytest
import torch
from tiny_models import FAMILIES, NUM_TEXT, schedule

from pumer_hf.models.encoders import attention, embeddings
from pumer_hf.models.encoders.attention import AttentionKernel
from pumer_hf.models.encoders.meter import layers as meter_layers
from pumer_hf.models.encoders.meter import towers as meter_towers
from pumer_hf.models.encoders.release import ReleaseKernel
from pumer_hf.models.encoders.vilt import embeddings as vilt_embeddings
from pumer_hf.models.encoders.vilt import layers as vilt_layers
from pumer_hf.tokens import TokenPair, Tokens

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
LAYER_MODULES = (attention, embeddings, vilt_embeddings, vilt_layers, meter_layers, meter_towers)


def tokens(length):
    return Tokens.initial(torch.zeros(2, length, 1))


@each_family
def test_each_layer_gets_a_plan(family):
    backbone = family.model(schedule("pumer", "small"), pooled_only=True).base_model
    pair = TokenPair(tokens(NUM_TEXT), tokens(family.num_image))
    plans = backbone.plans(pair, with_attentions=True)
    assert [plan.index for plan in plans] == [0, 1, 2, 3]
    assert [plan.reducer for plan in plans] == [None, backbone.reducer, None, None]
    assert [plan.num_queries for plan in plans] == [None, None, None, 1]
    assert all(plan.with_attentions for plan in plans)
    assert {plan.chunk for plan in plans} == {None}  # gradients need all states
    with torch.no_grad():
        plans = backbone.plans(pair, with_attentions=False)
        assert {plan.chunk for plan in plans} == {backbone.chunk_size(2, NUM_TEXT, family.num_image)} != {None}
    assert not any(plan.with_attentions for plan in plans)


@each_family
@pytest.mark.parametrize(("semantics", "kernel"), [("paper", AttentionKernel), ("release", ReleaseKernel)])
def test_a_model_has_one_kernel(family, semantics, kernel):
    backbone = family.model(semantics=semantics).base_model
    assert type(backbone.kernel) is kernel
    used = {id(module.kernel) for name, module in backbone.named_modules() if name and "kernel" in vars(module)}
    assert used == {id(backbone.kernel)}


def signatures(module):
    """The functions and methods that a module defines, by name, with the names of their parameters."""
    functions = {name: value for name, value in vars(module).items() if isinstance(value, FunctionType)}
    for class_name, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ == module.__name__:
            members = vars(cls).items()
            functions |= {f"{class_name}.{name}": value for name, value in members if isinstance(value, FunctionType)}
    own = {name: function for name, function in functions.items() if function.__module__ == module.__name__}
    return {name: set(inspect.signature(function).parameters) - {"self", "_cls"} for name, function in own.items()}


@pytest.mark.parametrize("module", LAYER_MODULES, ids=lambda module: module.__name__.removeprefix("pumer_hf.models."))
def test_no_function_of_a_layer_takes_more_than_five_arguments(module):
    found = signatures(module)
    assert found
    assert {name: names for name, names in found.items() if len(names) > 5} == {}
