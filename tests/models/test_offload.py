"""Weights that accelerate keeps on a disk or on the CPU, and brings for the time of each module's forward."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from tiny_models import FAMILIES, inputs_of, schedule
from torch import nn

REDUCTIONS = {
    "none": None,
    "pumer": schedule("pumer", "small"),
    "tip": schedule("tip", "attention"),
    "dynamicvit": schedule("dynamicvit", "small"),
}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)


def on_disk(model, folder):
    """The model, loaded as if the memory took half of it."""
    model.save_pretrained(folder)
    size = sum(parameter.nbytes for parameter in model.parameters())
    loaded = type(model).from_pretrained(
        folder, device_map="auto", max_memory={"cpu": size // 2}, offload_folder=folder / "offload"
    )
    assert {"cpu", "disk"} == set(loaded.hf_device_map.values())
    return loaded.eval()


OFFLOADED = {
    "cpu": lambda model, folder: cpu_offload(model, execution_device="cpu"),
    "disk": lambda model, folder: disk_offload(model, folder, execution_device="cpu"),
    "device_map": on_disk,
}
each_way = pytest.mark.parametrize("offload", OFFLOADED.values(), ids=OFFLOADED)


@each_family
@pytest.mark.parametrize("reduction", [REDUCTIONS["pumer"], REDUCTIONS["tip"]], ids=["pumer", "tip"])
@each_way
@torch.no_grad()
def test_offloading_changes_no_logit(family, reduction, offload, tmp_path):
    model, inputs = family.model(reduction), inputs_of(family)
    expected = model(**inputs).logits
    offloaded = offload(model, tmp_path)
    assert any(parameter.is_meta for parameter in offloaded.parameters())
    assert torch.equal(offloaded(**inputs).logits, expected)
    assert offloaded.device == offloaded.base_model.device == torch.device("cpu")


@each_family
@each_way
@torch.no_grad()
def test_set_reduction_of_an_offloaded_model(family, offload, tmp_path):
    inputs, learned = inputs_of(family), REDUCTIONS["dynamicvit"]
    model = family.model(learned)
    expected = {"learned": model(**inputs).logits}
    for name in ("pumer", "none"):
        model.set_reduction(REDUCTIONS[name])
        expected[name] = model(**inputs).logits
    model.set_reduction(learned)
    offloaded = offload(model, tmp_path)
    offloaded.set_reduction(REDUCTIONS["pumer"])
    assert torch.equal(offloaded(**inputs).logits, expected["pumer"])
    offloaded.set_reduction(None)
    assert torch.equal(offloaded(**inputs).logits, expected["none"])
    offloaded.set_reduction(learned)  # remembers what it has learned
    assert torch.equal(offloaded(**inputs).logits, expected["learned"])


@each_family
def test_resizing_needs_the_weights(family):
    model = cpu_offload(family.model(), execution_device="cpu")
    with pytest.raises(ValueError, match="image_size=32: .*offloaded"):
        model.resize_images(32)


@each_family
@each_reduction
def test_no_module_is_called_with_a_module(family, reduction):
    model, given = family.model(reduction), []
    for module in model.modules():
        module.register_forward_pre_hook(
            lambda module, args, kwargs: given.extend([*args, *kwargs.values()]), with_kwargs=True
        )
    model(**inputs_of(family))
    assert given
    assert not [type(value).__name__ for value in given if isinstance(value, nn.Module)]
