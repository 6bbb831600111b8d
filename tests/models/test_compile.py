"""Every method compiles and exports in every family. What takes long is slow. Quick are the whole models without a
reduction, with PuMer, and with ToMe, whose sizes the attention of the model reads; all other reducers are compiled
alone, and those of PuMer's extreme schedule too.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny_models import (
    FAMILIES,
    REDUCTIONS,
    depth_of,
    gradients,
    inputs_of,
    loss_of,
    parts_of,
    token_pair,
)

from pumer_hf.bench.contenders import random_inputs
from pumer_hf.reducers import build_reducer
from pumer_hf.tokens import Evidence, TokenPair

pytestmark = pytest.mark.integration


def is_quick(family, name):
    return name == "pumer-small" or (family == "vilt" and name in ("none", "tome-small"))


def shallow(family, name):
    """A model that is no deeper than its schedule needs."""
    return family.model(REDUCTIONS[name], num_hidden_layers=depth_of(REDUCTIONS[name]))


CASES = [
    pytest.param(*case, id="-".join(case), marks=[] if is_quick(*case) else pytest.mark.slow)
    for case in itertools.product(FAMILIES, REDUCTIONS)
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_compiles_without_graph_break_forward_and_backward(family, name):
    torch.compiler.reset()
    family = FAMILIES[family]
    model, inputs = shallow(family, name).train(), inputs_of(family)
    expected_loss, expected = loss_of(model, inputs), gradients(model, inputs)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(loss_of(compiled, inputs), expected_loss)
    for name, gradient in gradients(compiled, inputs).items():
        torch.testing.assert_close(gradient, expected[name.removeprefix("_orig_mod.")], atol=1e-5, rtol=1e-4)


OPTIONS = [name for name in REDUCTIONS if not name.endswith("extreme") and not is_quick("vilt", name)]
OPTIONS += ["pumer-extreme"]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_reducer_compiles_without_graph_break_forward_and_backward(name):
    for part in parts_of(REDUCTIONS[name]):
        torch.compiler.reset()
        check_reducer_compiles(part)


def check_reducer_compiles(part):
    torch.manual_seed(0)
    reducer, pair = build_reducer(part, 16).train(), token_pair(16)
    image = replace(pair.image, prior=torch.rand(pair.image.mask.shape))
    keys = (pair.text.states, image.states)
    layer = part.layers[0] if part.layers else 0

    def run(reduce):
        """The tokens that are left, the losses, and the gradients."""
        states = [one.clone().requires_grad_() for one in keys]
        attention = (keys[0] @ keys[1].transpose(1, 2)).softmax(dim=-1).unsqueeze(1).repeat(1, 2, 1, 1)
        given = TokenPair(replace(pair.text, states=states[0]), replace(image, states=states[1]))
        torch.manual_seed(1)  # for methods that draw
        reduced, trace = reduce(layer, given, Evidence(attention, *states))
        left = [reduced.text.states, reduced.image.states]
        total = sum(one.square().sum() for one in left) + sum(trace.losses.values())
        weights = [*states, *reducer.parameters()]
        gradients = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
        return [*left, reduced.image.source, total], list(gradients)

    expected, found = run(reducer), run(torch.compile(reducer, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_exports(family, name):
    family = FAMILIES[family]
    model, inputs = shallow(family, name), inputs_of(family)
    exported = torch.export.export(model, (), kwargs=inputs).module()
    torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits)


@torch.inference_mode()
def test_compiled_code_is_for_one_text_length_and_any_batch():
    torch.compiler.reset()
    model, open_sizes = shallow(FAMILIES["vilt"], "pumer-small").eval(), []

    def backend(graph, inputs):
        open_sizes.append({str(size) for size in inputs if isinstance(size, torch.SymInt)})
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch_size, length in [(2, 9), (2, 7), (3, 7), (5, 7)]:
        inputs = random_inputs(model, batch_size, length)
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)
    # Were the length open, those of the layers behind would be expressions that took inductor ten minutes.
    assert list(map(len, open_sizes)) == [0, 0, 1]
