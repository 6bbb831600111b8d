"""`keep_mass` in encoders: each example keeps its own number of patches, whatever else is in its batch."""

import pytest
import torch
from tiny_models import FAMILIES, gradients, inputs_of, schedule

from pumer_hf.bench.contenders import BenchOptions, contender
from pumer_hf.export.onnx_file import export_onnx
from pumer_hf.measures.faithfulness import compared_reducers
from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.tokens import Evidence, TokenPair, Tokens

PART = {"method": "lookahead", "site": "inputs", "keep_mass": 0.8, "rank": 8}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_choice = pytest.mark.parametrize("diversity", ["dpp", "max_min", None])


def one_of(inputs, index):
    return {name: value[index : index + 1] for name, value in inputs.items()}


@torch.inference_mode()
@each_family
@each_choice
def test_an_example_keeps_its_number_and_its_answer_in_any_batch(family, diversity):
    model, inputs = family.model({**PART, "diversity": diversity}), inputs_of(family)
    together = model(**inputs)
    trace, number = together.reduction[0], len(inputs["input_ids"])
    assert len(set(trace.image_lengths.tolist())) > 1
    assert trace.num_image == max(trace.image_lengths)
    for index in range(number):
        alone = model(**one_of(inputs, index))
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-5, rtol=1e-5)
        own = alone.reduction[0]
        assert own.image_lengths.tolist() == [own.num_image] == [int(trace.image_lengths[index])]
        assert torch.equal(own.image_source[0], trace.image_source[index])
        assert torch.equal(own.keep[0], trace.keep[index, : own.num_image])


@torch.inference_mode()
@each_family
def test_the_most_is_announced_and_all_of_the_mass_keeps_all(family):
    model, inputs = family.model({**PART, "keep_mass": 0.999, "max_keep": 4}), inputs_of(family)
    found = model(**inputs).reduction[0]
    assert model.output_lengths(9, family.num_image)[0] == (9, 5)
    assert found.num_image == 5 == max(found.image_lengths)
    whole = family.model({**PART, "keep_mass": 1.0})
    expected = whole(**inputs).logits
    whole.set_reduction(None)
    torch.testing.assert_close(expected, whole(**inputs).logits, atol=1e-5, rtol=1e-5)


@each_family
def test_a_scorer_that_learns_changes_no_logit(family):
    model, inputs = family.model(PART), inputs_of(family)
    expected = model(**inputs).logits
    torch.testing.assert_close(model.train()(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    found = gradients(model, inputs)
    assert all(found[name].abs().sum() > 0 for name in found if ".scorer.image." in name)


class Alone(torch.nn.Module):
    """The reducer without its model."""

    def __init__(self):
        super().__init__()
        self.reducer = build_reducer(parse_method(PART), 16).eval()

    def forward(self, text, image):
        pair = TokenPair(Tokens.initial(text), Tokens.initial(image))
        return self.reducer(0, pair, Evidence(None, text, image))[0].image.states


@pytest.mark.parametrize("compile_it", [False, True], ids=["exported", "compiled"])
def test_code_with_fixed_shapes_is_refused(compile_it):
    torch.compiler.reset()
    given = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    with pytest.raises(Exception, match=r"reduction\.keep_mass=0\.8.*give keep_ratio"):
        if compile_it:
            torch.compile(Alone(), fullgraph=True, backend="eager")(*given)
        else:
            torch.export.export(Alone(), given)


def test_an_onnx_file_and_a_compiled_benchmark_are_refused_at_once(tmp_path):
    model = FAMILIES["vilt"].model(PART)
    with pytest.raises(ValueError, match=r"reduction\.keep_mass=0\.8: an ONNX file .*keep_ratio"):
        export_onnx(model, tmp_path / "model.onnx", 9)
    with pytest.raises(ValueError, match=r"reduction\.keep_mass=0\.8: a compiled model .*keep_ratio"):
        contender(model, 9, BenchOptions(compile=True))


def test_what_counts_padding_is_refused():
    with pytest.raises(ValueError, match=r"reduction\.keep_mass: .*'layers'"):
        FAMILIES["vilt"].model([PART, schedule("pumer", "small")])
    model = FAMILIES["vilt"].model(PART)
    with pytest.raises(ValueError, match=r"reduction\.keep_mass=0\.8: .*keep_ratio"):
        compared_reducers(model, seed=0)
