"""What every reducer must keep in every model family. A new method needs a row in `tiny_models.SCHEDULES`, no more."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_models import FAMILIES, NUM_TEXT, REDUCTIONS, SCHEDULES, gradients, inputs_of, parts_of, places_of, schedule
from transformers import AutoModelForVisualQuestionAnswering

from pumer_hf.reducers import METHODS, build_reducer
from pumer_hf.tokens import Evidence, TokenPair, Tokens

pytestmark = [
    pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES),
    pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS),
]


def pick(inputs, examples):
    return {name: value[examples] for name, value in inputs.items()}


def test_tokens_leave_each_layer_as_announced(family, reduction):
    model = family.model(reduction)
    announced = {"inputs": model.base_model.token_reduction.lengths_at("inputs", NUM_TEXT, family.num_image)}
    announced["layers"] = model.output_lengths(NUM_TEXT, family.num_image)
    traces = model(**inputs_of(family)).reduction
    places = places_of(reduction)
    assert [(trace.site, trace.layer) for trace in traces] == places
    assert [(trace.num_text, trace.num_image) for trace in traces] == [announced[site][at] for site, at in places]
    assert reduction is None or sum(announced["layers"][-1]) < NUM_TEXT + family.num_image
    for trace in traces:
        assert trace.text_source.max() == trace.num_text - 1
        assert trace.image_source.max() == trace.num_image - 1


def test_cls_tokens_stay_alone_at_index_0(family, reduction):
    for trace in family.model(reduction)(**inputs_of(family)).reduction:
        for source in (trace.text_source, trace.image_source):
            assert (source[:, 0] == 0).all()
            assert ((source == 0).sum(dim=1) == 1).all()


def test_padding_holds_no_token_and_no_real_one_is_forgotten_without_pruning(family, reduction):
    inputs = inputs_of(family)
    for trace in family.model(reduction)(**inputs).reduction:
        assert ((trace.text_source >= 0) == inputs["attention_mask"].bool()).all()


def test_ratios_of_zero_give_the_unreduced_model(family, reduction):
    inputs = inputs_of(family)
    plain, reduced = family.model(None), family.model(reduction)
    if any("num_keep" in part.to_dict() for part in parts_of(reduction)):
        with pytest.raises(ValueError, match=r"reduction\.num_keep=1: .*keep_ratio"):
            reduced.scale_reduction(0.0)
        return
    if reduction is not None:
        reduced.scale_reduction(0.0)
    assert not plain.load_state_dict(reduced.state_dict(), strict=False).missing_keys  # a method may have more
    torch.testing.assert_close(reduced(**inputs).logits, plain(**inputs).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_forward_and_backward(family, reduction, dtype):
    inputs = inputs_of(family)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    for training in (False, True):
        model = family.model(reduction, initializer_range=0.1).to(dtype).train(training)
        outputs = model(**inputs)
        assert outputs.logits.dtype == torch.float32  # the last layer of a head computes in it
        assert outputs.logits.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients(model, inputs).values())


def test_every_parameter_gets_a_finite_gradient(family, reduction):
    model = family.model(reduction).train()
    found = gradients(model, inputs_of(family))
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(family, reduction, reentrant):
    model = family.model(reduction).train()
    expected = gradients(model, inputs_of(family))
    # the older name warns since transformers 5.2x, the newer one is not in 5.10
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    if reentrant and any(reducer.learns for reducer in model.base_model.token_reduction.reducers.values()):
        with pytest.raises(ValueError, match="use_reentrant.*False"):  # gradients would be lost
            gradients(model, inputs_of(family))
        return
    found = gradients(model, inputs_of(family))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_computing_only_what_is_pooled_changes_nothing(family, reduction):
    model, inputs = family.model(reduction).double(), inputs_of(family)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    expected = [model(**inputs).logits, gradients(model.train(), inputs)]
    model.config.pooled_only = True
    found = [model.eval()(**inputs).logits, gradients(model.train(), inputs)]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_same_seed_same_result(family, reduction):
    first, second = (family.model(reduction)(**inputs_of(family)).logits for _ in range(2))
    assert torch.equal(first, second)


def test_an_example_does_not_depend_on_its_batch_mates(family, reduction):
    model, inputs = family.model(reduction), inputs_of(family)
    together = model(**inputs)
    for index in range(len(inputs["input_ids"])):
        alone = model(**pick(inputs, [index]))
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-5, rtol=1e-5)
        for one, all_of_them in zip(alone.reduction, together.reduction, strict=True):
            assert torch.equal(one.text_source[0], all_of_them.text_source[index])
            assert torch.equal(one.image_source[0], all_of_them.image_source[index])


def test_save_and_load_keeps_schedule_and_logits(family, reduction, tmp_path):
    model, inputs = family.model(reduction), inputs_of(family)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    assert loaded.config.reduction == model.config.reduction
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_set_reduction_equals_loading_with_it(family, reduction):
    inputs = inputs_of(family)
    model, expected = family.model(schedule("pumer", "small")), family.model(reduction)
    scorers = [part for part in expected.token_reduction.part_reducers if part.learns_apart]
    model.base_model.learned_apart.extend(copy.deepcopy(scorers))  # as if the model had learned them before
    model.set_reduction(reduction)
    model.load_state_dict(expected.state_dict())  # of what a method learns
    assert torch.equal(model(**inputs).logits, expected(**inputs).logits)
    assert model.config.reduction == expected.config.reduction


def padded_pair(width=6):
    """Tokens of three examples, the last ones of each padding; index 0 real."""
    generator = torch.Generator().manual_seed(3)

    def tokens(num_real, length):
        mask = torch.arange(length) < torch.tensor(num_real).unsqueeze(1)
        states = torch.randn(len(num_real), length, width, generator=generator)
        return Tokens.initial(states, mask, prior=torch.rand(mask.shape, generator=generator))

    return TokenPair(tokens([9, 5, 2], 9), tokens([17, 8, 3], 17))


def evidence_of(pair):
    """Evidence as a function of each token alone."""
    attention = pair.image.states.sum(dim=-1).abs()[:, None, None].expand(-1, 2, pair.text.mask.shape[1], -1)
    return Evidence(attention, text_keys=pair.text.states, image_keys=pair.image.states)


def test_padding_never_beats_or_touches_a_real_token(family, reduction):
    for part in parts_of(reduction):
        check_padding_is_nothing(part)


def check_padding_is_nothing(part):
    pair, layer = padded_pair(), part.layers[0] if part.layers else 0
    reducer = build_reducer(part, pair.image.states.shape[-1]).eval()
    # The same tokens, but padding looks as salient as anything can, and like the token before it.
    loud = TokenPair(
        *(
            replace(
                tokens, states=torch.where(tokens.mask.unsqueeze(-1), tokens.states, 100 * tokens.states.roll(1, 1))
            )
            for tokens in (pair.text, pair.image)
        )
    )
    reduced, trace = reducer(layer, pair, evidence_of(pair))
    loudly_reduced, _ = reducer(layer, loud, evidence_of(loud))
    for name in ("text", "image"):
        before, after, loudly = getattr(pair, name), getattr(reduced, name), getattr(loudly_reduced, name)
        assert torch.equal(after.source, loudly.source)
        torch.testing.assert_close(
            after.states[after.mask], loudly.states[loudly.mask], msg=f"{name}: padding enters a real token"
        )
        assert (after.mask == (after.size > 0)).all()
        assert ((after.source >= 0) <= before.mask).all()
    num_kept_padding = (~pair.image.mask.gather(1, trace.keep)).sum(dim=1) if trace.keep is not None else None
    if num_kept_padding is not None:
        pruned_real = pair.image.mask.sum(dim=1) - pair.image.mask.gather(1, trace.keep).sum(dim=1)
        assert ((num_kept_padding == 0) | (pruned_real == 0)).all()


def test_every_method_has_a_case(family, reduction):
    assert set(SCHEDULES) == set(METHODS)
    assert all({"small", "extreme"} <= set(sizes) for sizes in SCHEDULES.values())
