"""Linear layers in int8, by PyTorch's dynamic quantisation, on top of reduced models."""

import warnings

import pytest
import torch
from tiny_models import FAMILIES, inputs_of, schedule
from torch import nn


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_int8_stays_close_and_reduces_as_much(family):
    model, inputs = family.model(schedule("pumer", "small"), initializer_range=0.1), inputs_of(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch wants to drop all of it in favour of torchao
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is nn.Linear for module in quantized.modules())
    with torch.inference_mode():
        exact, rough = model(**inputs), quantized(**inputs)
    lengths = [[(trace.num_text, trace.num_image) for trace in outputs.reduction] for outputs in (exact, rough)]
    assert lengths[0] == lengths[1] != []
    assert 0 < (rough.logits - exact.logits).abs().max() < 0.2 * exact.logits.std()
