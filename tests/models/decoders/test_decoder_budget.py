"""A budget of FLOPs in decoder models, the image tower included."""

import pytest
import torch
from accelerate import cpu_offload
from models.decoders.tiny import ONE, tiny_inputs, tiny_model

from pumer_hf import reduced
from pumer_hf.flops import count_flops
from pumer_hf.models.budget import TOLERANCE
from pumer_hf.models.families import DECODERS

QUICK = ("llava",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DECODERS]
)
def test_decoders_meet_a_budget(name):
    model, stock = tiny_model(name, ours=True), tiny_model(name)
    inputs = {**tiny_inputs(model, name, [[ONE, 7, 8]]), "logits_to_keep": 1}
    counter = model.flops_counter()
    whole = count_flops(model, {**counter.inputs, "logits_to_keep": 1})[0]
    for site in model.family.sites:
        for method in ("pumer", "random"):
            usual = counter.reducers(model.config.checked({"method": method, "site": site, "flops": 0.5}))
            flops = counter.count(usual).total / whole  # in tiny models, each token counts for much
            model.set_reduction(method=method, site=site, flops=flops)
            part = count_flops(model, {**counter.inputs, "logits_to_keep": 1})[0] / whole
            assert part == pytest.approx(flops, abs=TOLERANCE)
            assert part == pytest.approx(model.config.budget["spent"], abs=0.0001)
        with reduced(stock, {"method": "random", "site": site, "flops": flops}) as traces:
            stock(**inputs)
        assert len(traces[0][0].kept) < len(traces[0][0].columns)


def test_counting_leaves_a_model_as_it_was():
    model = tiny_model("qwen2_vl", ours=True)
    model(**tiny_inputs(model, "qwen2_vl", [[ONE, 7, 8]]))
    positions = model.model.rope_deltas.clone()
    model.train()
    model.model.visual.eval()
    heard = []
    model.watch = heard.append
    model.set_reduction(method="tip", site="layers", flops=0.97)
    assert torch.equal(model.model.rope_deltas, positions)
    assert model.training
    assert not model.model.visual.training
    assert heard == []


def test_a_budget_of_a_model_whose_weights_are_offloaded():
    model = tiny_model("llava", ours=True)
    expected = tiny_model("llava", ours=True)
    expected.set_reduction(method="random", site="inputs", flops=0.8)
    cpu_offload(model, torch.device("cpu"))
    model.set_reduction(method="random", site="inputs", flops=0.8)
    assert model.reduction == expected.reduction


def test_a_budget_inside_a_block_that_reduces():
    stock = tiny_model("llava")
    with (
        reduced(stock, {"method": "random", "site": "inputs", "keep_ratio": 0.3}),
        pytest.raises(ValueError, match="reduction.flops=0.8: inside another `reduced` block"),
        reduced(stock, {"method": "random", "site": "inputs", "flops": 0.8}),
    ):
        pass
    with reduced(stock, {"method": "random", "site": "inputs", "flops": 0.8}) as traces:
        stock(**tiny_inputs(stock, "llava", [[ONE, 7, 8]]))
    ours = tiny_model("llava", ours=True)
    ours.set_reduction(method="random", site="inputs", flops=0.8)
    assert len(traces[0][0].kept) == round(36 * ours.reduction.parts[0].keep_ratio)
