"""`semantics="release"` against recordings of the released code (see `tests/fixtures/README.md`)."""

import json
import lzma
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from tiny_models import FAMILIES, schedule
from torch.nn import functional as F
from transformers import AutoModelForVisualQuestionAnswering

from pumer_hf.convert import convert_checkpoint
from pumer_hf.models.encoders.release import ReleaseKernel
from pumer_hf.reducers.pumer import PuMerReductionConfig
from pumer_hf.reducers.release import MeterReleaseReducer, ReleaseReducer
from pumer_hf.tokens import Evidence, TokenPair, Tokens

FIXTURES = Path(__file__).parents[1] / "fixtures"


@cache
def recording(family):
    """The metadata and the tensors of a family."""
    data = lzma.decompress((FIXTURES / f"release_{family}.safetensors.xz").read_bytes())
    header_size = int.from_bytes(data[:8], "little")
    meta = json.loads(json.loads(data[8 : 8 + header_size])["__metadata__"]["recording"])
    return meta, load(data)


CASES = [(family, case) for family in ("vilt", "meter") for case in recording(family)[0]["cases"]]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Models by family and switches, each made once."""
    models = {}

    def get(family, switches):
        key = (family, json.dumps(switches))
        if key not in models:
            models[key] = convert(family, switches, tmp_path_factory.mktemp(family))
        return models[key]

    return get


def convert(family, switches, folder):
    """The model of a family, through the converter, from a folder as PuMer's authors released them."""
    meta, tensors = recording(family)
    source = folder / "released"
    source.mkdir()
    names = {name: value for name, value in switches.items() if name in meta["config"]}
    (source / "config.json").write_text(json.dumps({**meta["config"], **names}), encoding="utf-8")
    weights = {name[len("weights.") :]: value for name, value in tensors.items() if name.startswith("weights.")}
    torch.save(weights, source / "pytorch_model.bin")
    overrides = {}
    if family == "meter":
        overrides["vision_config"] = {"num_attention_heads": meta["clip"]["heads"]}
        overrides["text_config"] = {"num_attention_heads": meta["text_config"]["num_attention_heads"]}
        if switches.get("parallel"):
            overrides["co_attention"] = "parallel"
    convert_checkpoint(source, folder / "converted", processor=False, config=overrides)
    return AutoModelForVisualQuestionAnswering.from_pretrained(folder / "converted").eval()


def inputs_of(family, case):
    tensors = recording(family)[1]
    return {
        "input_ids": tensors[f"{case}.in.text_ids"].long(),
        "attention_mask": tensors[f"{case}.in.text_masks"].long(),
        "pixel_values": (tensors["pixels"].float() - 127) / 64,
    }


def assert_close(found, expected, tolerance):
    """Largest difference, relative to the largest value."""
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(("family", "case"), CASES)
def test_logits_and_kept_tokens_are_those_of_the_released_code(family, case, converted):
    meta, tensors = recording(family)
    switches = meta["cases"][case]
    model = converted(family, switches)
    with torch.no_grad():
        outputs = model(**inputs_of(family, case))
    assert_close(outputs.logits, tensors[f"{case}.logits"], 1e-5)
    assert [trace.layer for trace in outputs.reduction] == [
        layer // 2 if family == "meter" else layer for layer in switches["reduce_layers"] or []
    ]
    for trace in outputs.reduction:
        released = f"{case}.reduce{trace.layer * 2 if family == 'meter' else trace.layer}"
        assert_close(trace.saliency, tensors[f"{released}.saliency"], 1e-5)
        if trace.keep is not None:
            assert torch.equal(trace.keep, tensors[f"{released}.keep_idx"].long())
        if f"{released}.text_src_idx" in tensors:
            assert torch.equal(trace.text_matching.src, tensors[f"{released}.text_src_idx"].long())


def test_gradients_are_those_of_the_released_code(converted):
    meta, tensors = recording("meter")
    model = converted("meter", meta["cases"]["p2r2t2_pad"])
    logits = model(**inputs_of("meter", "train")).logits
    task_loss = F.binary_cross_entropy_with_logits(logits, tensors["train.labels"])
    teacher = tensors["train.teacher_logits"].log_softmax(dim=-1)
    distillation = F.kl_div(logits.log_softmax(dim=-1), teacher, reduction="batchmean", log_target=True)
    (task_loss + distillation).backward()
    assert_close(logits, tensors["train.logits"], 1e-5)
    assert_close(task_loss.detach(), torch.tensor(meta["train"]["loss_task"]), 1e-5)
    assert_close(distillation.detach(), torch.tensor(meta["train"]["loss_logits"]), 1e-5)

    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    theirs = {name[len("train.grad.") :]: value for name, value in tensors.items() if name.startswith("train.grad.")}
    same_name = {
        "vqa_classifier.": "classifier.",
        "meter.cross_modal_text_transform.": "meter.text_projection.",
        "meter.cross_modal_image_pooler.": "meter.image_pooler.",
        "meter.text_transformer.": "meter.text_model.",
        "meter.vit_model.ln_post.": "meter.vision_model.post_layernorm.",
    }
    compared = 0
    for old, new in same_name.items():
        for name, expected in theirs.items():
            if name.startswith(old) and not name.endswith("key.bias"):  # 0 but for rounding: it shifts whole rows
                assert_close(ours[new + name[len(old) :]], expected, 1e-4)
                compared += 1
    assert compared > 20
    norms = {name: value.norm() for name, value in ours.items()}
    released_norm = sum(value**2 for value in meta["train"]["grad_norm"].values()) ** 0.5
    torch.testing.assert_close(torch.stack([*norms.values()]).norm(), torch.tensor(released_norm), rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
class TestReleaseIsAModelLikeAnyOther:
    def model(self, family, **overrides):
        return family.model(schedule("pumer", "small"), semantics="release", **overrides)

    def test_it_differs_from_the_paper_where_text_is_padded(self, family):
        paper, release = family.model(schedule("pumer", "small")), self.model(family)
        inputs = family.inputs()
        assert not torch.allclose(paper(**inputs).logits, release(**inputs).logits, atol=1e-3)

    def test_it_is_saved_and_loaded(self, family, tmp_path):
        model, inputs = self.model(family), family.inputs()
        model.save_pretrained(tmp_path)
        loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path).eval()
        assert loaded.config.semantics == "release"
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)

    def test_set_reduction_keeps_the_semantics(self, family):
        model = family.model(None, semantics="release")
        model.set_reduction(schedule("pumer", "small"))
        assert isinstance(model.base_model.reducer, ReleaseReducer)
        assert torch.equal(model(**family.inputs()).logits, self.model(family)(**family.inputs()).logits)

    @pytest.mark.integration
    def test_it_compiles_without_graph_break(self, family):
        torch.compiler.reset()
        model, inputs = self.model(family, num_hidden_layers=3), family.inputs()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)

    def test_bfloat16_runs_forward_and_backward(self, family):
        model, inputs = self.model(family, initializer_range=0.1).to(torch.bfloat16), family.inputs()
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        model(**inputs).logits.float().sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    def test_an_unknown_semantics_is_an_error(self, family):
        with pytest.raises(ValueError, match="semantics='papre': .*paper, release"):
            family.config(semantics="papre")


def one_example(num_image):
    """Three real text tokens and two of padding; the third one and the first of padding have equal keys."""
    text = Tokens.initial(torch.tensor([[[1.0], [2], [4], [8], [16]]]), torch.tensor([[True] * 3 + [False] * 2]))
    image = Tokens.initial(10 * torch.arange(float(num_image)).view(1, -1, 1), torch.ones(1, num_image).bool())
    attention = torch.tensor([0.1, 0.4, 0.2, 0.3, 0.0]).expand(1, 1, 5, -1)  # the [CLS] of the image is the fourth
    text_keys = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [0, 1], [-1, 0]]])
    image_keys = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 0]]])
    return ReleaseKernel().begin(TokenPair(text, image)), Evidence(attention, text_keys, image_keys)


@pytest.mark.parametrize("reducer", [ReleaseReducer, MeterReleaseReducer])
def test_one_released_step_by_hand(reducer):
    pair, evidence = one_example(5)
    reduced, trace = reducer(PuMerReductionConfig((2,), 0.2, 0.2, 0.2), 8)(2, pair, evidence)
    torch.testing.assert_close(trace.saliency, torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.0]]) * 5 / 3)
    # Kept are 1, 3, 2 and the [CLS] 0. Of the even half, 1 and 2, the second merges into 3.
    assert trace.keep.tolist() == [[1, 3, 2, 0]]
    assert reduced.image.states.flatten().tolist() == [10.0, 25.0, 0.0]
    assert torch.equal(reduced.image.weight, torch.ones(1, 3))
    assert reduced.image.mask.tolist() == [[True, True, True]]
    assert reduced.image.weight.dtype == reduced.text.weight.dtype == torch.float32
    assert reduced.image.source.tolist() == trace.image_source.tolist() == [[2, 0, 1, 1, -1]]
    # Text: 0 and 4 stay, 1 stays, 2 merges with the padding 3 and weighs half.
    assert reduced.text.states.flatten().tolist() == [1.0, 16.0, 2.0, 6.0]
    assert reduced.text.weight.tolist() == [[1.0, 0.0, 1.0, 0.5]]
    assert reduced.text.mask.tolist() == [[True, False, True, True]]
    assert trace.text_source.tolist() == [[0, 2, 3, -1, -1]]


@pytest.mark.parametrize(("reducer", "num_text"), [(ReleaseReducer, 5), (MeterReleaseReducer, 4)])
def test_a_released_step_that_prunes_nothing_leaves_the_image_as_it_is(reducer, num_text):
    pair, evidence = one_example(5)
    reduced, trace = reducer(PuMerReductionConfig((0,), 0.05, 0.0, 0.2), 8)(0, pair, evidence)
    assert reduced.image is pair.image
    assert (trace.num_text, trace.num_image) == (num_text, 5)
    assert (trace.keep, trace.image_matching) == (None, None)
    assert trace.image_source.tolist() == [[0, 1, 2, 3, 4]]
    assert reduced.text.states.shape[1] == num_text


def test_without_image_merging_the_released_meter_prunes_nothing():
    meter = FAMILIES["meter"]
    pruning = {**schedule("pumer", "small"), "image_merge_ratio": 0.0}
    trace = meter.model(pruning, semantics="release")(**meter.inputs()).reduction[0]
    assert trace.num_image == meter.num_image
    assert trace.keep is None
    assert trace.num_text < len(trace.text_source[0])
    assert (
        FAMILIES["vilt"].model(pruning, semantics="release")(**FAMILIES["vilt"].inputs()).reduction[0].num_image < 17
    )


@pytest.mark.parametrize(("prune_ratio", "vilt", "meter"), [(0.0, (10, 20), (10, 20)), (0.01, (10, 20), (8, 16))])
def test_merging_without_pruning(prune_ratio, vilt, meter):
    config = PuMerReductionConfig((0,), prune_ratio, 0.2, 0.2)  # 1 % of 20 tokens is none
    assert ReleaseReducer(config, 8).output_lengths(0, 10, 20) == vilt
    assert MeterReleaseReducer(config, 8).output_lengths(0, 10, 20) == meter
