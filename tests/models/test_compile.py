"""Every method compiles in every family; the larger schedules of most are slow."""

import pytest
import torch
from tiny_models import FAMILIES, SCHEDULES, gradients, inputs_of, loss_of, schedule

CASES = [
    pytest.param(None, id="none"),
    *(
        pytest.param(
            schedule(method, size),
            id=f"{method}-{size}",
            marks=[] if size == "small" or method == "pumer" else pytest.mark.slow,
        )
        for method in SCHEDULES
        for size in SCHEDULES[method]
    ),
]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("reduction", CASES)
def test_compiles_without_graph_break_forward_and_backward(family, reduction):
    torch.compiler.reset()
    model, inputs = family.model(reduction).train(), inputs_of(family)
    expected_loss, expected = loss_of(model, inputs), gradients(model, inputs)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(loss_of(compiled, inputs), expected_loss)
    for name, gradient in gradients(compiled, inputs).items():
        torch.testing.assert_close(gradient, expected[name.removeprefix("_orig_mod.")], atol=1e-5, rtol=1e-4)
