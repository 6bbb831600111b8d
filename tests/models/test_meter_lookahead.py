"""Choosing by the text inside METER's image tower (method `lookahead` at site `"tower"`)."""

import pytest
import torch
from accelerate import cpu_offload
from tiny_models import FAMILIES, NUM_TEXT, gradients, meter_config, meter_inputs, schedule
from transformers import AutoModelForVisualQuestionAnswering

from pumer_hf import ops
from pumer_hf.reducers import Schedule
from pumer_hf.reducers.scorer import FORMS

METER = FAMILIES["meter"]
LOOKAHEAD = {"method": "lookahead", "site": "tower", "layers": [0], "num_keep": 5, "rank": 6}
LAST = {**LOOKAHEAD, "layers": [1]}
PUMER = schedule("pumer", "small")
EYES = {**PUMER, "saliency": "lookahead"}
VARIANTS = {
    "first": LOOKAHEAD,
    "last": LAST,
    "max-min": {**LOOKAHEAD, "diversity": "max_min", "form": "words"},
    "merging": {**LOOKAHEAD, "merge_rest": True, "form": "bag"},
    "alone": {**LOOKAHEAD, "diversity": None, "form": "block"},
    "pumer": [LOOKAHEAD, PUMER],
    "eyes": [LAST, EYES],
    "inputs": [LOOKAHEAD, {"method": "grid", "site": "inputs", "keep_ratio": 0.5}],
    "merging behind": [LOOKAHEAD, {"method": "tome", "site": "tower", "layers": [1], "merge_ratio": 0.4}],
}

each_variant = pytest.mark.parametrize("reduction", VARIANTS.values(), ids=VARIANTS)


def tower_trace(outputs):
    return next(trace for trace in outputs.reduction if trace.site == "tower" and trace.saliency is not None)


def pick(inputs, examples):
    return {name: value[examples] for name, value in inputs.items()}


# what is chosen, and what leaves the tower


@pytest.mark.parametrize("layer", [0, 1])
def test_the_tower_equals_a_slow_one(layer):
    """Layer `layer` attends to all tokens, and only the chosen ones go on."""
    model, inputs = METER.model({**LOOKAHEAD, "layers": [layer]}), meter_inputs()
    meter, tower = model.meter, model.meter.vision_model
    text = meter.encode_text(inputs["input_ids"], inputs["attention_mask"])
    states = tower.pre_layrnorm(tower.embeddings(inputs["pixel_values"]))
    for index, block in enumerate(tower.encoder.layers):
        states = states + block.self_attn(block.layer_norm1(states), attention_mask=None)[0]
        if index == layer:
            scores = tower.reducer.scorer(states[:, 1:], text, inputs["attention_mask"].bool())
            trace = tower_trace(model(**inputs))
            torch.testing.assert_close(trace.saliency[:, 1:], scores.softmax(dim=-1))
            assert trace.keep.shape == (3, 6)
            states = states.gather(1, trace.keep.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        states = states + block.mlp(block.layer_norm2(states))
    image = meter.image_projection(tower.post_layernorm(states)) + meter.token_type_embeddings.weight[1]
    found = model(**inputs, output_hidden_states=True).hidden_states[0][:, NUM_TEXT:]
    torch.testing.assert_close(found, image, atol=1e-5, rtol=1e-5)


@each_variant
def test_tokens_leave_as_announced(reduction):
    model, inputs = METER.model(reduction), meter_inputs()
    layer = model.reduction.at("tower").layers[0]
    tower = model.token_reduction.lengths_at("tower", 0, 17)
    assert tower[layer] == (0, 6)
    outputs = model(**inputs, output_hidden_states=True)
    trace = tower_trace(outputs)
    assert outputs.reduction[0] is trace
    assert (trace.site, trace.layer, trace.num_text, trace.num_image) == ("tower", layer, NUM_TEXT, 6)
    assert torch.equal(trace.text_source >= 0, inputs["attention_mask"].bool())
    left = tower[-1][1]
    after_inputs = model.token_reduction.lengths_at("inputs", NUM_TEXT, left)[-1]
    assert outputs.hidden_states[0].shape[1] == sum(after_inputs)
    announced = model.output_lengths(NUM_TEXT, left)
    assert [state.shape[1] for state in outputs.hidden_states[1:]] == [sum(lengths) for lengths in announced]


def test_dropped_patches_are_held_by_no_token():
    outputs = METER.model([LOOKAHEAD, PUMER])(**meter_inputs())
    first, last = outputs.reduction
    assert ((first.image_source >= 0).sum(dim=1) == 6).all()
    assert (first.image_source[:, 0] == 0).all()
    kept = first.image_source >= 0
    assert ((last.image_source >= 0) <= kept).all()
    for example in range(3):
        assert torch.equal(first.image_source[example, first.keep[example]], torch.arange(6))


def test_the_choice_depends_on_the_text_and_not_on_its_padding():
    model, inputs = METER.model({**LOOKAHEAD, "diversity": None}), meter_inputs()
    trace = tower_trace(model(**inputs))
    other = {
        **inputs,
        "input_ids": inputs["input_ids"].flip(0) + 0,
        "attention_mask": inputs["attention_mask"].flip(0),
    }
    assert not torch.equal(tower_trace(model(**other)).keep, trace.keep)
    shorter = {name: inputs[name][1:, :5] for name in ("input_ids", "attention_mask")}
    found = tower_trace(model(**shorter, pixel_values=inputs["pixel_values"][1:]))
    assert torch.equal(found.keep, trace.keep[1:])
    torch.testing.assert_close(found.saliency, trace.saliency[1:])


def test_a_reducer_that_does_not_read_the_text_gets_none():
    model, given = METER.model({"method": "tome", "site": "tower", "merge_ratio": 0.25}), []
    model.meter.vision_model.reducer.register_forward_pre_hook(lambda _, args: given.append(args[1].text.mask.shape))
    model(**meter_inputs())
    assert given == [(3, 0), (3, 0)]
    assert not model.meter.tower_reads_text


def test_the_prediction_goes_on_to_the_blocks():
    model, inputs = METER.model([{**LOOKAHEAD, "layers": [1]}, EYES]), meter_inputs()
    first, last = model(**inputs).reduction
    torch.testing.assert_close(last.saliency, first.saliency.gather(1, first.keep))
    with pytest.raises(ValueError, match="lookahead"):
        model.set_reduction(EYES)
    with pytest.raises(ValueError, match="grounded"):
        Schedule((model.reduction.at("tower"), METER.model(schedule("grounded", "small")).reduction.parts[0]))


def test_all_patches_kept_is_the_unreduced_model_with_a_prediction():
    whole = {name: value for name, value in LOOKAHEAD.items() if name != "num_keep"} | {"keep_ratio": 1.0}
    model, inputs = METER.model(whole), meter_inputs()
    plain = METER.model(None)
    plain.load_state_dict(model.state_dict(), strict=False)
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.logits, plain(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert tower_trace(outputs).saliency.shape == (3, 17)
    first, last = METER.model([whole, EYES])(**inputs).reduction
    assert torch.equal(last.saliency, first.saliency)


def test_a_map_from_outside_does_not_disturb():
    inputs = meter_inputs()
    model = METER.model(LOOKAHEAD)
    saliency = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(**inputs, image_saliency=saliency).logits, model(**inputs).logits)


def test_the_scorer_has_the_widths_of_the_tower_and_of_the_text():
    weights = METER.model(LOOKAHEAD).state_dict()
    assert weights["meter.vision_model.reducer.scorer.image.1.weight"].shape == (6, 20)
    assert weights["meter.vision_model.reducer.scorer.text.1.weight"].shape == (6, METER.config().hidden_size)
    assert METER.config().hidden_size not in (20, 24)  # so that a wrong width is an error


def test_merging_behind_the_choice_gets_the_image_alone():
    model, inputs = METER.model(VARIANTS["merging behind"]), meter_inputs()
    chosen, merged = model(**inputs).reduction
    assert (merged.site, merged.layer, merged.num_text, merged.num_image) == ("tower", 1, NUM_TEXT, 4)
    assert merged.text_matching is None
    assert ((merged.image_source >= 0) == (chosen.image_source >= 0)).all()
    scorer = model.meter.vision_model.reducer.scorer
    model.set_reduction(LOOKAHEAD)
    assert model.meter.vision_model.reducer.scorer is scorer
    assert torch.equal(tower_trace(model(**inputs)).keep, chosen.keep)


# contract


@each_variant
def test_an_example_does_not_depend_on_its_batch_mates(reduction):
    model, inputs = METER.model(reduction), meter_inputs()
    together = model(**inputs)
    for index in range(3):
        alone = model(**pick(inputs, [index]))
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-5, rtol=1e-5)
        for one, all_of_them in zip(alone.reduction, together.reduction, strict=True):
            assert torch.equal(one.image_source[0], all_of_them.image_source[index])


@each_variant
def test_gradients_are_finite_and_reach_the_scorer(reduction):
    model = METER.model(reduction).train()
    found = gradients(model, meter_inputs())
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert found["meter.vision_model.reducer.scorer.text.1.weight"].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_variant
def test_half_precision_runs_forward_and_backward(reduction, dtype):
    inputs = meter_inputs()
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    model = METER.model(reduction, initializer_range=0.1).to(dtype)
    assert model(**inputs).logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(model.train(), inputs).values())


@each_variant
def test_gradient_checkpointing_changes_nothing(reduction):
    model = METER.model(reduction).train()
    expected = gradients(model, meter_inputs())
    # the older name warns since transformers 5.2x, the newer one is not in 5.10
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    found = gradients(model, meter_inputs())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


@pytest.mark.parametrize("learns", [False, True], ids=["frozen", "learns"])
def test_reentrant_checkpointing_changes_nothing_or_is_refused(learns):
    model = METER.model(LOOKAHEAD).train()
    model.meter.vision_model.reducer.requires_grad_(learns)
    expected = gradients(model, meter_inputs())
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": True})
    model.enable_input_require_grads()
    if learns:
        with pytest.raises(ValueError, match="use_reentrant=False"):  # gradients would be lost
            gradients(model, meter_inputs())
        return
    for name, gradient in gradients(model, meter_inputs()).items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@each_variant
def test_save_and_load_keeps_schedule_and_logits(reduction, tmp_path):
    model, inputs = METER.model(reduction), meter_inputs()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path).eval()
    assert loaded.config.reduction == model.config.reduction
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    eager = METER.model_class.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(eager(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_images_of_another_size_keep_the_scorer():
    model = METER.model(LOOKAHEAD)
    reducer = model.meter.vision_model.reducer
    model.resize_images(24)
    assert model.meter.vision_model.reducer is reducer
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert tower_trace(model(**{**meter_inputs(), "pixel_values": pixels})).num_image == 6


def test_budgets_change_without_new_weights():
    model, inputs = METER.model(LOOKAHEAD), meter_inputs()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.set_reduction({**LOOKAHEAD, "num_keep": 3})
    assert tower_trace(model(**inputs)).num_image == 4
    with pytest.raises(ValueError, match="needs a trained scorer"):  # a scorer has learned the states of one layer
        model.set_reduction({**LOOKAHEAD, "layers": [1]})
    model.set_reduction({**LOOKAHEAD, "num_keep": 5})
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_pieces_of_the_feed_forward_parts_give_the_same(monkeypatch):
    monkeypatch.setattr("pumer_hf.models.encoders.base.MIN_CHUNK", 5)
    model, inputs = METER.model([LAST, PUMER]), meter_inputs()
    with torch.no_grad():
        assert model.meter.tower_plans(3)[0].chunk < 3 * 17
        in_pieces = model(**inputs).logits
    torch.testing.assert_close(in_pieces, model(**inputs).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_offloaded_weights_choose_the_same():
    model, inputs = METER.model(VARIANTS["merging behind"]), meter_inputs()
    expected = model(**inputs)
    offloaded = cpu_offload(model, execution_device="cpu")
    found = offloaded(**inputs)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(tower_trace(found).keep, tower_trace(expected).keep)


# heads


def test_retrieval_scores_each_pair_in_full():
    torch.manual_seed(0)
    model, inputs = METER.retrieval_class(meter_config(reduction=LOOKAHEAD)).eval(), meter_inputs()
    texts = model.encode_texts({name: inputs[name] for name in ("input_ids", "attention_mask")})
    assert "text_embeds" in texts  # the texts are encoded once
    image = model.encode_images({"pixel_values": inputs["pixel_values"][:1]})
    scores = model.score(texts, {name: value.expand(3, *value.shape[1:]) for name, value in image.items()})
    pairs = {**inputs, "pixel_values": inputs["pixel_values"][:1].expand(3, -1, -1, -1)}
    torch.testing.assert_close(scores, model(**pairs).logits[:, 0])
    candidates = {name: inputs[name].unsqueeze(0) for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model(**candidates, pixel_values=inputs["pixel_values"][:1]).logits[0], scores)


def test_each_of_two_images_is_chosen_from():
    fields = {"num_images": 2, "modality_type_vocab_size": 3}
    model, inputs = METER.images_class(meter_config(reduction=LOOKAHEAD, **fields)).eval(), meter_inputs()
    inputs["pixel_values"] = torch.stack([inputs["pixel_values"], inputs["pixel_values"].flip(0)], dim=1)
    assert [(trace.image_index, trace.site) for trace in model(**inputs).reduction] == [(0, "tower"), (1, "tower")]


# refusals


def test_an_image_without_its_text_is_refused():
    model, inputs = METER.model(LOOKAHEAD).meter, meter_inputs()
    with pytest.raises(ValueError, match=r"encode_image.*give pixel_values and input_ids"):
        model.encode_image(inputs["pixel_values"])
    image, source = METER.model(None).meter.encode_image(inputs.pop("pixel_values"))
    with pytest.raises(ValueError, match=r"image_embeds.*give pixel_values and input_ids"):
        model(**inputs, image_embeds=image, image_source=source)


@pytest.mark.parametrize("layers", [[], [0, 1], [2]])
def test_it_chooses_in_one_layer_that_is_there(layers):
    with pytest.raises(ValueError, match=r"reduction.layers=\[.*tower"):
        meter_config(reduction={**LOOKAHEAD, "layers": layers})


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_scorer_runs(form):
    outputs = METER.model({**LOOKAHEAD, "form": form})(**meter_inputs())
    assert outputs.logits.isfinite().all()
    assert torch.equal(ops.group_sizes(tower_trace(outputs).image_source, 6), torch.ones(3, 6, dtype=torch.long))
