"""Merging inside METER's image tower (method `tome` at site `"tower"`)."""

import json

import pytest
import torch
from tiny_models import (
    FAMILIES,
    NUM_TEXT,
    depth_of,
    gradients,
    loss_of,
    meter_config,
    meter_inputs,
    schedule,
    vilt_config,
)
from transformers import AutoModelForVisualQuestionAnswering

from pumer_hf import ops
from pumer_hf.models.encoders.meter.towers import encoded_tokens
from pumer_hf.models.encoders.plan import LayerPlan

METER = FAMILIES["meter"]
PUMER = schedule("pumer", "small")
TOME = {"method": "tome", "site": "tower", "merge_ratio": 0.25}
TOWER = [TOME, PUMER]
EXTREME = [{**TOME, "merge_ratio": 0.99}, schedule("pumer", "extreme")]
LEFT = {0.25: [13, 10], 0.99: [9, 5]}
"""Of 17 tokens in two layers, after each. A layer merges half of them at most."""

each_schedule = pytest.mark.parametrize("reduction", [TOWER, EXTREME], ids=["small", "extreme"])


def run_tower(model, pixels, ratio):
    """What the tower makes of images where each of its layers merges this part of the tokens away."""
    model.set_reduction({**TOME, "merge_ratio": ratio})
    tokens, _ = model.meter.vision_model(pixels, model.meter.tower_plans(len(pixels)))
    return tokens.states, tokens.source


def tower_source(model, inputs):
    """Long (B, 17): which token holds the [CLS] and each patch after the tower."""
    with torch.no_grad():
        return model.meter.encode_image(inputs["pixel_values"])[1]


# what merges


@each_schedule
def test_tokens_leave_the_tower_as_announced(reduction):
    model, inputs = METER.model(reduction), meter_inputs()
    ratio = reduction[0]["merge_ratio"]
    lengths = model.token_reduction.lengths_at("tower", 0, 17)
    assert lengths == [(0, left) for left in LEFT[ratio]]
    outputs = model(**inputs, output_hidden_states=True)
    assert outputs.hidden_states[0].shape[1] == NUM_TEXT + LEFT[ratio][-1]
    announced = model.output_lengths(NUM_TEXT, LEFT[ratio][-1])
    found = {site: [] for site in ("tower", "layers")}
    for trace in outputs.reduction:
        found[trace.site].append((trace.num_text, trace.num_image))
    assert [trace.site for trace in outputs.reduction][:2] == ["tower", "tower"]
    assert found["tower"] == [(NUM_TEXT, left) for left in LEFT[ratio]]
    assert found["layers"] == [announced[layer] for layer in reduction[1]["layers"]]


@each_schedule
def test_the_cls_stays_alone_and_no_patch_is_forgotten(reduction):
    source = tower_source(METER.model(reduction), meter_inputs())
    assert source.shape == (3, 17)
    assert (source[:, 0] == 0).all()
    assert (source[:, 1:] > 0).all()
    for example in source:
        assert sorted(set(example.tolist())) == list(range(LEFT[reduction[0]["merge_ratio"]][-1]))


def slow_layer(layer, states, groups, ratio):
    """One layer for one example, in loops: states (L, D), and for each token the patches that it holds."""
    own, length = layer.self_attn, len(groups)
    normed = layer.layer_norm1(states)
    query, key, value = (
        project(normed).view(length, own.num_heads, -1) for project in (own.q_proj, own.k_proj, own.v_proj)
    )
    # As many keys and values as there are patches: what ToMe's `+ log(size)` is equal to.
    parts = torch.tensor([token for token, group in enumerate(groups) for _ in group])
    heads = []
    for head in range(own.num_heads):
        scores = query[:, head] @ key[parts, head].T * own.head_dim**-0.5
        heads.append(scores.softmax(dim=-1) @ value[parts, head])
    states = states + own.out_proj(torch.cat(heads, dim=1))
    src, dst, unm = ops.bipartite_soft_matching(
        key.mean(dim=1)[None], torch.ones(1, length, dtype=torch.bool), min(round(ratio * length), (length - 1) // 2)
    )
    into = {2 * int(j) + 1: [2 * int(i) for i, k in zip(src[0], dst[0], strict=True) if k == j] for j in dst[0]}
    left = [2 * int(i) for i in unm[0]] + list(range(1, length, 2))
    merged = [[token, *into.get(token, [])] for token in left]
    sizes = torch.tensor([float(len(group)) for group in groups])
    states = torch.stack([(states[m] * sizes[m, None]).sum(dim=0) / sizes[m].sum() for m in merged])
    groups = [[patch for token in m for patch in groups[token]] for m in merged]
    return states + layer.mlp(layer.layer_norm2(states)), groups


@pytest.mark.parametrize("ratio", LEFT)
def test_the_tower_equals_a_slow_one(ratio):
    model, pixels = METER.model(None, num_hidden_layers=1), meter_inputs()["pixel_values"]
    tower = model.meter.vision_model
    with torch.no_grad():
        found, source = run_tower(model, pixels, ratio)
        for example, states in enumerate(tower.pre_layrnorm(tower.embeddings(pixels))):
            groups = [[position] for position in range(17)]
            for layer in tower.encoder.layers:
                states, groups = slow_layer(layer, states, groups, ratio)
            torch.testing.assert_close(found[example], tower.post_layernorm(states), atol=1e-5, rtol=1e-5)
            for token, group in enumerate(groups):
                assert (source[example] == token).nonzero().flatten().tolist() == sorted(group)
            assert max(map(len, groups)) > 2  # tokens that are merged already merge again


def test_no_ratio_and_ratio_0_are_the_tower_of_clip():
    pixels = meter_inputs()["pixel_values"]
    reduced, zero = METER.model(PUMER), METER.model([PUMER, {**TOME, "merge_ratio": 0.0}])
    assert torch.equal(reduced(**meter_inputs()).logits, zero(**meter_inputs()).logits)
    tower = zero.meter.vision_model
    tokens, traces = tower(pixels, [LayerPlan(index) for index in range(2)])
    assert torch.equal(tokens.source, torch.arange(17).expand(3, -1))
    assert traces == ()
    # The own attention, with nothing to merge, computes what CLIP's layer does.
    own, traces = tower(pixels, [LayerPlan(index, tower.reducer) for index in range(2)])
    torch.testing.assert_close(own.states, tokens.states, atol=1e-5, rtol=1e-5)
    assert [trace.layer for trace in traces] == [0, 1]


def test_some_layers_of_the_tower_can_merge():
    model, pixels = METER.model({**TOME, "layers": [1], "merge_ratio": 0.4}), meter_inputs()["pixel_values"]
    assert model.token_reduction.lengths_at("tower", 0, 17) == [(0, 17), (0, 10)]
    assert model.meter.encode_image(pixels)[0].shape[1] == 10
    model.set_reduction({**TOME, "layers": [0], "merge_ratio": 0.4})
    states, source = model.meter.encode_image(pixels)
    assert states.shape[1] == 10
    # The layers after it attend to a merged token as much as to the tokens that it holds.
    tower, weights = model.meter.vision_model, []
    tower.encoder.layers[1].register_forward_pre_hook(lambda _, args: weights.append(args[1].image.weight))
    model.meter.encode_image(pixels)
    assert torch.equal(weights[0], ops.group_sizes(source, 10).float())
    assert model.reduction.at("layers") is None
    (trace,) = model(**meter_inputs()).reduction
    assert (trace.site, trace.layer, trace.num_text, trace.num_image) == ("tower", 0, NUM_TEXT, 10)


def test_alike_patches_merge_and_change_nothing():
    """Of two patches that differ, in embedding and position, by nothing, the mean is the same and counts twice."""
    model = METER.model(None)
    tower = model.meter.vision_model
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[1:] = 0
        pixels = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 4, 4)
        plain, _ = tower(pixels, [LayerPlan(index) for index in range(len(tower.encoder.layers))])
        merged, source = run_tower(model, pixels, 0.25)
        torch.testing.assert_close(merged[0, source[0]], plain.states[0], atol=1e-5, rtol=1e-5)


# what comes into the cross-layers


def test_traces_say_which_token_holds_each_patch():
    nothing = {"layers": [1], "prune_ratio": 0.0, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    model, inputs = METER.model([{"method": "pumer", **nothing}, TOME]), meter_inputs()
    *merges, trace = model(**inputs).reduction
    source = tower_source(model, inputs)
    assert torch.equal(merges[-1].image_source, source)
    # Pruning orders the tokens anew by their saliency, even if it prunes none.
    assert torch.equal(trace.image_source, ops.keep_positions(trace.keep, 10).gather(1, source))
    model.set_reduction(TOWER)
    trace = model(**inputs).reduction[-1]
    left = (trace.image_source >= 0).sum(dim=1)
    assert (left < 17).all()  # some are pruned, with all that they hold
    for example in range(3):
        for token in range(10):
            held = trace.image_source[example, source[example] == token]
            assert len(set(held.tolist())) == 1


def test_tokens_from_the_tower_are_of_one_weight_without_a_grid():
    prior = torch.arange(5.0).expand(2, -1)
    states, source = torch.randn(2, 3, 4), torch.tensor([[0, 1, 2, 2, 1], [0, 1, 1, 1, 2]])
    tokens = encoded_tokens(states, source, prior, (2, 2))
    assert tokens.mask.dtype == torch.bool
    assert tokens.mask.all()
    assert tokens.grid is None
    assert torch.equal(tokens.size, torch.tensor([[1, 2, 2], [1, 3, 1]]))
    torch.testing.assert_close(tokens.prior, torch.tensor([[0, 2.5, 2.5], [0, 2, 4]]))
    whole = encoded_tokens(torch.randn(2, 5, 4), None, prior, (2, 2))
    assert whole.grid == (2, 2)
    assert whole.prior is prior


def test_an_encoded_image_is_used_with_its_source():
    model, inputs = METER.model(TOWER).meter, meter_inputs()
    pixels = inputs.pop("pixel_values")
    image, source = model.encode_image(pixels)
    outputs = model(**inputs, image_embeds=image, image_source=source)
    expected = model(**inputs, pixel_values=pixels)
    assert torch.equal(outputs.pooler_output, expected.pooler_output)
    assert torch.equal(outputs.reduction[-1].image_source, expected.reduction[-1].image_source)
    with pytest.raises(ValueError, match=r"image_embeds .*10 tokens .*16 patches .*image_source"):
        model(**inputs, image_embeds=image)


def test_saliency_from_outside_is_taken_along():
    saliency = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert METER.model(TOWER)(**meter_inputs(), image_saliency=saliency).logits.isfinite().all()


# contract


@each_schedule
def test_an_example_does_not_depend_on_its_batch_mates(reduction):
    model, inputs = METER.model(reduction), meter_inputs()
    together = model(**inputs)
    for index in range(3):
        alone = model(**{name: value[[index]] for name, value in inputs.items()})
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-5, rtol=1e-5)
        for one, all_of_them in zip(alone.reduction, together.reduction, strict=True):
            assert torch.equal(one.image_source[0], all_of_them.image_source[index])


@each_schedule
def test_every_parameter_gets_a_finite_gradient(reduction):
    model = METER.model(reduction).train()
    found = gradients(model, meter_inputs())
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["meter.vision_model.encoder.layers.0.self_attn.q_proj.weight"].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_forward_and_backward(dtype):
    inputs = meter_inputs()
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    model = METER.model(TOWER, initializer_range=0.1).to(dtype)
    assert model(**inputs).logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(model.train(), inputs).values())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant):
    model = METER.model(TOWER).train()
    expected = gradients(model, meter_inputs())
    runs = []
    for layer in model.meter.vision_model.encoder.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    # the older name warns since transformers 5.2x, the newer one is not in 5.10
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    found = gradients(model, meter_inputs())
    assert len(runs) == 4  # each of two layers once again
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_save_and_load_keeps_schedule_and_logits(tmp_path):
    model, inputs = METER.model(TOWER), meter_inputs()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path).eval()
    assert loaded.config.reduction == TOWER
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    eager = METER.model_class.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(eager(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)
    assert METER.model_class.from_pretrained(tmp_path, reduction=None).meter.vision_model.reducer is None


def test_a_folder_with_the_old_field_gives_the_same(tmp_path):
    model, inputs = METER.model(TOWER), meter_inputs()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["reduction"] = {**PUMER, "image_tower_merge_ratio": 0.25}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = METER.model_class.from_pretrained(tmp_path).eval()
    assert loaded.config.reduction == TOWER
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_images_of_another_size_merge_as_well():
    model = METER.model(TOWER)
    model.resize_images(8)
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model.meter.encode_image(pixels)[0].shape[1] == 3  # 5 tokens, 4, 3


def test_set_reduction_switches_it_and_a_ramp_scales_it():
    model, inputs = METER.model(TOWER), meter_inputs()
    plain = METER.model(None)(**inputs).logits
    model.scale_reduction(0.0)
    torch.testing.assert_close(model(**inputs).logits, plain, atol=1e-5, rtol=1e-5)
    model.scale_reduction(0.5)
    assert model.meter.encode_image(inputs["pixel_values"])[0].shape[1] == 13  # 17, 15, 13
    model.set_reduction(None)
    assert torch.equal(model(**inputs).logits, plain)
    model.set_reduction(TOWER)
    assert torch.equal(model(**inputs).logits, METER.model(TOWER)(**inputs).logits)


def test_retrieval_and_two_images_run():
    retrieval = METER.retrieval_class(meter_config(reduction=TOWER)).eval()
    inputs = meter_inputs()
    texts = retrieval.encode_texts({name: inputs[name] for name in ("input_ids", "attention_mask")})
    scores = retrieval.score(texts, retrieval.encode_images({"pixel_values": inputs["pixel_values"]}))
    torch.testing.assert_close(scores, retrieval(**inputs).logits[:, 0])
    two = METER.images_class(meter_config(reduction=TOWER, num_images=2, modality_type_vocab_size=3)).eval()
    inputs["pixel_values"] = torch.stack([inputs["pixel_values"]] * 2, dim=1)
    assert [(trace.image_index, trace.site) for trace in two(**inputs).reduction] == [
        (index, site) for index in range(2) for site in ("tower", "tower", "layers")
    ]


CHOICE = {"method": "lookahead", "site": "tower", "layers": [0], "keep_ratio": 0.4, "rank": 8}
CHOICES = {
    "lookahead": [CHOICE, {**TOME, "layers": [1]}],
    "lookahead-max-min": [{**CHOICE, "diversity": "max_min", "form": "words"}],
}
"""The choice by the text is compiled and exported too; `test_meter_lookahead.py` has its other tests."""


def shallow(reduction):
    """A model that is no deeper than its schedule needs."""
    return METER.model(reduction, num_hidden_layers=depth_of(reduction))


# Quick is the one that chooses in one layer and merges in the next: the others are parts of it, or of what
# test_compile.py compiles.
@pytest.mark.integration
@pytest.mark.parametrize(
    "reduction",
    [
        pytest.param(TOWER, marks=pytest.mark.slow),
        pytest.param(EXTREME, marks=pytest.mark.slow),
        CHOICES["lookahead"],
        pytest.param(CHOICES["lookahead-max-min"], marks=pytest.mark.slow),
    ],
    ids=["small", "extreme", *CHOICES],
)
def test_compiles_without_graph_break_forward_and_backward(reduction):
    torch.compiler.reset()
    model, inputs = shallow(reduction).train(), meter_inputs()
    expected_loss, expected = loss_of(model, inputs), gradients(model, inputs)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(loss_of(compiled, inputs), expected_loss)
    for name, gradient in gradients(compiled, inputs).items():
        torch.testing.assert_close(gradient, expected[name.removeprefix("_orig_mod.")], atol=1e-5, rtol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize(
    "reduction",
    [pytest.param(TOWER, marks=pytest.mark.slow), CHOICES["lookahead"]],
    ids=["tome", "lookahead"],
)
def test_exports(reduction):
    model, inputs = shallow(reduction), meter_inputs()
    batch = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    exported = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=batch).module()
    torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits)
    one = {name: value[:1] for name, value in inputs.items()}
    torch.testing.assert_close(exported(**one).logits, model(**one).logits, atol=1e-5, rtol=1e-5)


def test_the_layers_that_stay_whole_are_there():
    """FSDP raises an error for a name in `_no_split_modules` that no module has."""
    model = METER.model()
    names = {type(module).__name__ for module in model.modules()}
    assert "PuMerMeterVisionLayer" in model._no_split_modules
    assert set(model._no_split_modules) <= names


# refusals


def test_models_that_cannot_merge_there_say_so():
    with pytest.raises(ValueError, match="reduction.site='tower': pumer_vilt can reduce at 'inputs', 'layers'"):
        vilt_config(reduction=TOWER)
    with pytest.raises(ValueError, match="reduction.site='tower': pumer_vilt can reduce at 'inputs', 'layers'"):
        FAMILIES["vilt"].model(PUMER).set_reduction(TOWER)
    with pytest.raises(ValueError, match="reduction.method='tome' at site 'tower': semantics='release' knows only"):
        meter_config(reduction=TOWER, semantics="release")
    with pytest.raises(ValueError, match=r"reduction.layers=\[2\] names layer 2, .* layers 0 to 1 at site 'tower'"):
        meter_config(reduction={**TOME, "layers": [2]})
    with pytest.raises(ValueError, match="image_tower_merge_ratio is not a field of method 'tome'"):
        meter_config(reduction={**schedule("tome", "small"), "image_tower_merge_ratio": 0.25})
    assert vilt_config(reduction={**PUMER, "image_tower_merge_ratio": 0.0}).reduction == PUMER
