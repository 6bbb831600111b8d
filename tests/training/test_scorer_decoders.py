"""The training of a scorer beside a frozen decoder, of transformers' own class and of ours."""

import warnings

import pytest
import torch
from models.decoders.tiny import ONE, TWO, tiny_inputs, tiny_model
from torch import nn

from pumer_hf import reduced
from pumer_hf.models.bases import DecoderBase, EncoderBase, Target, base_of
from pumer_hf.models.decoders.text_rows import attending_layers
from pumer_hf.models.families import DECODERS
from pumer_hf.models.scorers import load_record, save_scorer
from pumer_hf.reducers import parse_method
from pumer_hf.training.answers import BUDGETS, answers_kept, budget_rows, choose_layer
from pumer_hf.training.scorer import ScorerTrainer, ScorerTrainingArguments, add_scorer, lookahead_of
from pumer_hf.training.scorer_answers import NUM_DRAWS, AnswersTrainer

PART = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8, "target_layer": 1}
PROMPTS = [[5, ONE, 7, 8, 9], [4, 5, TWO, 17, ONE, 8], [3, ONE, 5, 6], [11, 12]]
NAMES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm"]
BOTH = pytest.mark.parametrize("ours", [False, True], ids=["stock", "ours"])


@pytest.fixture
def arguments(make_args):
    def make(**values):
        defaults = {"learning_rate": 1e-2, "optim": "adamw_torch", "per_device_train_batch_size": 4}
        return make_args(ScorerTrainingArguments, **{**defaults, **values})

    return make


@pytest.fixture
def trained(arguments):
    """Train a scorer for a tiny model on one batch, and return the losses."""

    def train(model, name, steps=20, kind=ScorerTrainer, prompts=PROMPTS, **values):
        inputs = tiny_inputs(model, name, prompts)
        args = arguments(max_steps=steps, logging_steps=1, **values)
        trainer = kind(model, args=args, train_dataset=[{}] * 4, data_collator=lambda rows: dict(inputs))
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return train


def new(name, ours=False, seed=0, **part):
    model = tiny_model(name, ours=ours, seed=seed)
    torch.manual_seed(1)
    add_scorer(model, {**PART, **part})
    return model


def kept_by(traces):
    return [trace.kept for trace in traces]


@pytest.mark.parametrize(("name", "ours"), [*[(name, False) for name in NAMES], ("llava", True)])
def test_a_scorer_learns_and_the_model_does_not(name, ours, trained):
    model = new(name, ours)
    before = {key: value.clone() for key, value in model.state_dict().items() if "scorer" not in key}
    losses = trained(model, name)
    assert losses[-1] < 0.7 * losses[0]
    after = {key: value for key, value in model.state_dict().items() if "scorer" not in key}
    assert before.keys() == after.keys() == tiny_model(name).state_dict().keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


class ByChance(AnswersTrainer):
    """Changes half of the answers with a choice, since those of a random model may all stay or all change."""

    def base_answers(self, inputs, reducers):
        answers = super().base_answers(inputs, {})
        assert super().base_answers(inputs, reducers).shape == answers.shape
        return answers + torch.randint(2, (len(answers), 1)) if reducers else answers


@pytest.mark.parametrize("kind", [ScorerTrainer, ByChance])
@pytest.mark.parametrize("name", DECODERS)
def test_a_scorer_of_each_family_is_trained(name, kind, trained):
    """With features of DeepStack, towers with windows, tiles, several images per prompt, and layers of other kinds."""
    prompts = [[ONE, 7, 8, 9], [ONE, 17, 8], [ONE, 5], [ONE, 6, 6]] if name == "paligemma" else PROMPTS
    model = new(name, target_layer=attending_layers(tiny_model(name))[0])
    before = {key: value.clone() for key, value in lookahead_of(model).scorer.named_parameters()}
    stock = {key: value.clone() for key, value in model.state_dict().items()}
    trained(model, name, steps=2, kind=kind, prompts=prompts, target_rows="answer", answer_tokens=2)
    after = dict(lookahead_of(model).scorer.named_parameters())
    assert any(not torch.equal(value, after[key]) for key, value in before.items())
    assert all(value.isfinite().all() for value in after.values())
    assert all(torch.equal(value, stock[key]) for key, value in model.state_dict().items() if "scorer" not in key)


def test_both_forms_learn_the_same(trained):
    losses = [trained(new("llava", ours), "llava") for ours in (False, True)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_a_saved_scorer_chooses_the_same_in_both_forms(name, trained, tmp_path):
    model = new(name)
    trained(model, name)
    inputs = tiny_inputs(model, name, PROMPTS)
    save_scorer(base_of(model).host, tmp_path / "scorer", trained_on="noise", steps=20)
    assert load_record(str(tmp_path / "scorer"))[0].base_type == DECODERS[name].stock_type
    use = {"method": "lookahead", "site": "inputs", "weights": str(tmp_path / "scorer"), "keep_ratio": 0.12}
    again = tiny_model(name)
    with torch.no_grad(), reduced(again, use) as traces:
        logits = again(**inputs).logits
    kept = kept_by(traces[0])
    of_ours = tiny_model(name, ours=True)
    of_ours.set_reduction(use)
    of_ours.save_pretrained(tmp_path / "ours")
    loaded = DECODERS[name].model_class.from_pretrained(tmp_path / "ours").eval()
    for one in (of_ours, loaded):
        with torch.no_grad():
            found = one(**inputs)
        assert torch.equal(found.logits, logits)
        assert all(torch.equal(*pair) for pair in zip(kept_by(found.reduction), kept, strict=True))
    assert [len(places) for places in kept] == [4, 3, 4, 4] if name == "qwen3_vl" else [4, 4, 4, 4]
    with torch.no_grad(), reduced(new(name), {**use, "weights": None} | {"weights": str(tmp_path / "scorer")}):
        pass  # a stock model that has a scorer of its own takes another one


def test_a_scorer_of_ours_fits_the_stock_model_and_from_pretrained(trained, tmp_path):
    model = new("llava", ours=True)
    trained(model, "llava")
    inputs = tiny_inputs(model, "llava", PROMPTS)
    save_scorer(model, tmp_path / "scorer", trained_on="noise", steps=20)
    with torch.no_grad():
        expected = model(**inputs)
    stock = tiny_model("llava")
    stock.save_pretrained(tmp_path / "stock")
    use = {"method": "lookahead", "site": "inputs", "weights": str(tmp_path / "scorer"), "keep_ratio": 0.25}
    loaded = DECODERS["llava"].model_class.from_pretrained(tmp_path / "stock", reduction=use).eval()
    with torch.no_grad(), reduced(stock, use):
        assert torch.equal(stock(**inputs).logits, expected.logits)
        assert torch.equal(loaded(**inputs).logits, expected.logits)


@BOTH
def test_another_base_is_an_error(ours, tmp_path):
    model = new("llava")
    save_scorer(base_of(model).host, tmp_path / "scorer", trained_on="noise", steps=1)
    use = {"method": "lookahead", "site": "inputs", "weights": str(tmp_path / "scorer"), "keep_ratio": 0.25}
    for name, seed, message in [("llava", 1, "other weights"), ("internvl", 0, "a model of type 'llava'")]:
        other = tiny_model(name, ours=ours, seed=seed)
        with pytest.raises(ValueError, match=message):
            other.set_reduction(use) if ours else reduced(other, use).__enter__()


# The answers


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *[(name, False) for name in ("llava", "qwen2_5_vl", "gemma3", "smolvlm", "paligemma", "qwen3_5")],
        ("llava", True),
    ],
)
def test_the_answers_are_those_of_generate(name, tokens, ours):
    prompts = [[ONE, 7, 8, 9], [ONE, 17, 8], [ONE, 5]] if name == "paligemma" else PROMPTS
    grid = {"method": "grid", "site": "inputs", "keep_ratio": 0.2}
    model = tiny_model(name, ours=ours, reduction=grid)
    plain = tiny_model(name)
    inputs = tiny_inputs(model, name, prompts)
    base = base_of(model, Target(answer_tokens=tokens))
    length = inputs["input_ids"].shape[1]
    reducer = base.host.make_reducer(parse_method(grid)).eval()
    options = {"do_sample": False, "max_new_tokens": tokens}
    whole = plain.generate(**inputs, **options)[:, length:]
    with reduced(plain, grid):
        cut = plain.generate(**inputs, **options)[:, length:]
    assert torch.equal(base.answers(inputs, {}), whole)
    assert torch.equal(base.answers(inputs, {"inputs": reducer}), cut)
    assert torch.equal(base.answers(base.prepared(inputs), {"inputs": reducer}), cut)
    assert name == "paligemma" or not torch.equal(whole, cut)  # else this test shows nothing


def test_padding_on_the_right_gives_the_same_answers():
    model = tiny_model("llava")
    base = base_of(model)
    left, right = (tiny_inputs(model, "llava", PROMPTS, pad_left=pad_left) for pad_left in (True, False))
    reducer = base.host.make_reducer(parse_method({"method": "grid", "site": "inputs", "keep_ratio": 0.2})).eval()
    for reducers in ({}, {"inputs": reducer}):
        assert torch.equal(base.answers(left, reducers), base.answers(right, reducers))


@BOTH
def test_the_second_stage_makes_choices_that_keep_the_answer_more_probable(ours, trained, monkeypatch):
    """As if the answer to a prompt were kept if, of its every image, token 3 is kept."""
    model = new("llava", ours)
    inputs = tiny_inputs(model, "llava", PROMPTS)

    def base_answers(trainer, inputs, reducers):
        if not reducers:
            return torch.ones(4, 1, dtype=torch.long)
        (drawn,) = reducers.values()
        (chosen,) = drawn.chosen.values()
        has_it = (chosen == 3).any(dim=1)
        return torch.stack([has_it[0], has_it[1] & has_it[2], has_it[3], torch.tensor(True)]).unsqueeze(1).long()

    monkeypatch.setattr(AnswersTrainer, "base_answers", base_answers)

    def probability():
        (seen,) = base_of(model).observe(inputs, [], lookahead_of(model).config)
        return lookahead_of(model).log_attention(seen.pair).exp()[:, 3]

    before = probability()
    trained(model, "llava", steps=60, kind=AnswersTrainer)
    assert (probability() > 3 * before).all()


def test_the_second_stage_takes_images_of_several_sizes(trained):
    model = new("qwen2_5_vl")
    before = lookahead_of(model).scorer.gate.weight.clone()
    trained(model, "qwen2_5_vl", steps=2, kind=AnswersTrainer, answer_tokens=2)
    assert not torch.equal(lookahead_of(model).scorer.gate.weight, before)


def test_each_draw_is_carried_out(arguments, monkeypatch):
    """The choices that the base answers with are those that were drawn, for each image of the prompts."""
    model = new("qwen2_5_vl")
    inputs = tiny_inputs(model, "qwen2_5_vl", PROMPTS)
    args = arguments(max_steps=1)
    trainer = AnswersTrainer(model, args=args, train_dataset=[{}] * 4, data_collator=lambda rows: dict(inputs))
    drawn, real, carried = [], AnswersTrainer.draw, []

    def draw(trainer, seen, scores, config):
        drawn.append(real(trainer, seen, scores, config))
        return drawn[-1]

    def forward(reducer, layer, pair, evidence):
        pair, trace = super(type(reducer), reducer).forward(layer, pair, evidence)
        carried.append(trace.keep[:, 1:] - 1)
        return pair, trace

    monkeypatch.setattr(AnswersTrainer, "draw", draw)
    monkeypatch.setattr("pumer_hf.training.scorer_answers.DrawnReducer.forward", forward)
    trainer.train()
    assert len(drawn) == 2  # images of two sizes
    assert len(carried) == NUM_DRAWS * len(drawn)
    for index in range(NUM_DRAWS):
        for group, choice in enumerate(drawn):
            assert torch.equal(carried[len(drawn) * index + group], choice.chosen[:, index].sort(dim=1).values)


# The table


def test_the_layer_is_chosen_and_the_table_made():
    model = new("llava")
    batches = [tiny_inputs(model, "llava", PROMPTS[:3]), tiny_inputs(model, "llava", PROMPTS[1:])]
    layer, kept = choose_layer(model, parse_method(PART), batches)
    assert list(kept) == [0, 1, 2, "all"]
    assert layer == next(target for target, share in kept.items() if share == max(kept.values()))
    rows = budget_rows(model, layer, batches, batches[0], seconds=0.01)
    assert [row.num_patches for row in rows] == [18, 12, 8, 4]
    for row in rows:
        assert list(row.methods) == ["lookahead", "diverse", "tome", "random", "target"]
        assert row.speed > 0
    grid = {"method": "diverse", "site": "inputs", "keep_ratio": BUDGETS["1/9"]}
    same, total = 0, 0
    for batch in batches:
        length = batch["input_ids"].shape[1]
        whole = model.generate(**batch, do_sample=False, max_new_tokens=1)[:, length]
        with reduced(model, grid):
            cut = model.generate(**batch, do_sample=False, max_new_tokens=1)[:, length]
        same, total = same + int((whole == cut).sum()), total + len(cut)
    assert rows[-1].methods["diverse"] == same / total


@pytest.mark.parametrize("per_prompt", [False, True])
def test_the_target_is_chosen_by_the_images_of_a_prompt(per_prompt):
    """With `per_prompt`, the attention of all images of a prompt is compared."""
    part = parse_method({**PART, "per_prompt": per_prompt})
    model = new("qwen2_5_vl", per_prompt=per_prompt)
    batch = tiny_inputs(model, "qwen2_5_vl", PROMPTS)
    layer, _ = choose_layer(model, part, [batch])
    assert layer in (0, 1, 2)
    rows = budget_rows(model, layer, [batch], batch, seconds=0.01)
    assert all(0 <= share <= 1 for row in rows for share in row.methods.values())


def test_the_rows_of_the_target_are_an_option(trained, arguments):
    losses = [trained(new("llava"), "llava", target_rows=rows) for rows in ("question", "answer")]
    assert losses[0] != losses[1]
    assert losses[1][-1] < 0.7 * losses[1][0]
    with pytest.raises(ValueError, match="target_rows='words'"):
        arguments(target_rows="words")
    with pytest.raises(ValueError, match="answer_tokens=0"):
        arguments(answer_tokens=0)


def test_sinks_are_taken_out_of_the_target(arguments):
    """Two questions about the same two images, and one about another."""
    prompts = [[5, ONE, 7, ONE, 9], [5, ONE, 11, ONE, 17], [3, ONE, 5, 6]]
    model = new("qwen3_vl")
    inputs = tiny_inputs(model, "qwen3_vl", prompts)
    trainer = ScorerTrainer(model, args=arguments(sinks="remove", max_steps=1), data_collator=dict)
    (seen,) = trainer.observe(inputs, [1])
    attention = seen.attention[1]
    wanted = trainer.wanted(seen, torch.tensor([0, 0, 1]))
    for one, other in ((0, 2), (1, 3), (2, 0), (3, 1)):  # the images of the first two prompts
        above = (attention[one] - attention[other]).clamp(min=0)
        torch.testing.assert_close(wanted[one], above / above.sum(), atol=1e-5, rtol=1e-4)
    assert torch.equal(wanted[4], attention[4])
    scorer = lookahead_of(model).scorer
    loss, _ = trainer.loss_and_scores(scorer, {**inputs, "image_group": torch.tensor([0, 0, 1])})
    kept, _ = ScorerTrainer(model, args=arguments(max_steps=1)).loss_and_scores(scorer, inputs)
    assert loss > kept  # the scores are still flat, and the target is not
    with pytest.raises(ValueError, match="sinks='remove'.*image_group"):
        trainer.loss_and_scores(scorer, inputs)
    with pytest.raises(ValueError, match="sinks='drop'"):
        arguments(sinks="drop")


# What is a base


def test_the_kind_of_base_is_that_of_the_model(make_model):
    assert isinstance(base_of(make_model(reduction=None)), EncoderBase)
    stock = tiny_model("llava")
    base = base_of(torch.nn.ModuleDict({"wrapper": stock}))
    assert isinstance(base, DecoderBase)
    assert base.model is stock
    assert base_of(base) is base
    with pytest.raises(ValueError, match="Linear"):
        base_of(torch.nn.Linear(1, 1))


def test_a_decoder_without_a_scorer_or_such_a_site_is_an_error(arguments):
    model = tiny_model("llava")
    with pytest.raises(ValueError, match="add_scorer"):
        ScorerTrainer(model, args=arguments())
    with pytest.raises(ValueError, match=r"reduction.site='tower'.*LLaVA"):
        add_scorer(model, {**PART, "site": "tower", "layers": [1]})
    with pytest.raises(ValueError, match="no batch"):
        answers_kept(model, {}, [])


def test_only_decoders_have_rows_and_answers_of_tokens(make_model):
    with pytest.raises(ValueError, match="answer_tokens=2"):
        base_of(make_model(reduction=None), Target(answer_tokens=2)).check_answers()


def test_a_model_that_transformers_has_quantised_is_not_moved():
    model = tiny_model("llava")
    assert base_of(model).movable
    model.hf_quantizer = object()
    assert not base_of(model).movable


# Quantised bases


def in_int8(model):
    """The model with the linear layers of its decoder in int8, whose weights are then no parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch wants to drop all of it in favour of torchao
        torch.ao.quantization.quantize_dynamic(model.get_decoder(), {nn.Linear}, dtype=torch.qint8, inplace=True)
    assert not any(type(module) is nn.Linear for module in model.get_decoder().modules())
    return model


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_a_scorer_of_a_quantised_model(name, trained, tmp_path):
    model = in_int8(tiny_model(name))
    torch.manual_seed(1)
    add_scorer(model, PART)
    losses = trained(model, name)
    assert losses[-1] < 0.7 * losses[0]
    trained(model, name, steps=2, kind=AnswersTrainer)
    save_scorer(base_of(model).host, tmp_path / "scorer", trained_on="noise", steps=22)
    inputs, greedy = tiny_inputs(model, name, PROMPTS), {"do_sample": False, "max_new_tokens": 3}
    whole = model.generate(**inputs, **greedy)
    again = in_int8(tiny_model(name))
    use = {"method": "lookahead", "site": "inputs", "weights": str(tmp_path / "scorer")}
    with reduced(again, {**use, "keep_ratio": 1.0}):
        assert torch.equal(again.generate(**inputs, **greedy), whole)
    with reduced(again, {**use, "keep_ratio": 0.25}) as traces:
        assert again.generate(**inputs, **greedy).shape == whole.shape
    assert [len(trace.kept) for trace in traces[0]] == ([9, 6, 9, 9] if name == "qwen3_vl" else [9, 9, 9, 9])
    with pytest.raises(ValueError, match="other weights"), reduced(tiny_model(name), {**use, "keep_ratio": 0.5}):
        pass  # not quantised
