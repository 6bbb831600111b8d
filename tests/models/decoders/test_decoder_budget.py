"""A budget of FLOPs in decoder models, the image tower included."""

import pytest
from models.decoders.tiny import ONE, tiny_inputs, tiny_model

from pumer_hf import reduced
from pumer_hf.flops import count_flops
from pumer_hf.models.budget import TOLERANCE
from pumer_hf.models.families import DECODERS

QUICK = ("llava", "qwen3_5")


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
        assert len(traces[0][0].kept) < 36
