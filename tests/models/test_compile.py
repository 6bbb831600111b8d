"""Every method compiles and exports in every family. What takes long is slow: most of the larger schedules, and METER
with other methods than PuMer, since they are the same code as in ViLT.
"""

import itertools

import pytest
import torch
from tiny_models import FAMILIES, REDUCTIONS, gradients, inputs_of, loss_of, schedule

from pumer_hf.bench.contenders import random_inputs

pytestmark = pytest.mark.integration


def is_quick(family, name):
    return name == "pumer-small" or (family == "vilt" and (name == "pumer-extreme" or not name.endswith("extreme")))


CASES = [
    pytest.param(*case, id="-".join(case), marks=[] if is_quick(*case) else pytest.mark.slow)
    for case in itertools.product(FAMILIES, REDUCTIONS)
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_compiles_without_graph_break_forward_and_backward(family, name):
    torch.compiler.reset()
    family = FAMILIES[family]
    model, inputs = family.model(REDUCTIONS[name]).train(), inputs_of(family)
    expected_loss, expected = loss_of(model, inputs), gradients(model, inputs)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(loss_of(compiled, inputs), expected_loss)
    for name, gradient in gradients(compiled, inputs).items():
        torch.testing.assert_close(gradient, expected[name.removeprefix("_orig_mod.")], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_exports(family, name):
    family = FAMILIES[family]
    model, inputs = family.model(REDUCTIONS[name]), inputs_of(family)
    exported = torch.export.export(model, (), kwargs=inputs).module()
    torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits)


@torch.inference_mode()
def test_compiled_code_is_for_one_text_length_and_any_batch():
    torch.compiler.reset()
    model, open_sizes = FAMILIES["vilt"].model(schedule("pumer", "small")).eval(), []

    def backend(graph, inputs):
        open_sizes.append({str(size) for size in inputs if isinstance(size, torch.SymInt)})
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch_size, length in [(2, 9), (2, 7), (3, 7), (5, 7)]:
        inputs = random_inputs(model, batch_size, length)
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)
    # Were the length open, those of the layers behind would be expressions that took inductor ten minutes.
    assert list(map(len, open_sizes)) == [0, 0, 1]
