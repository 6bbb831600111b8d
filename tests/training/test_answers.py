"""How many answers a choice of patches keeps, and which layer that chooses."""

import pytest
import torch
from tiny_models import FAMILIES

from pumer_hf.models.bases import base_of
from pumer_hf.models.observing import observe
from pumer_hf.reducers import parse_method
from pumer_hf.results import BudgetRow, Environment, ScorerReport
from pumer_hf.training.answers import (
    BUDGETS,
    GivenReducer,
    always,
    answers_kept,
    budget_rows,
    choose_layer,
    given,
    rivals,
)
from pumer_hf.training.scorer import ScorerTrainer, ScorerTrainingArguments, add_scorer

PART = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8, "target_layer": 1}
CONFIG = parse_method(PART)


def batches_of(family, number=3):
    return [{**family.inputs(seed), "labels": torch.zeros(3, 5)} for seed in range(number)]


def answers_of(model, inputs, reduction):
    model.set_reduction(reduction)
    with torch.no_grad():
        return model(**{name: value for name, value in inputs.items() if name != "labels"}).logits.argmax(-1)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_answers_are_those_of_the_schedule(name):
    family = FAMILIES[name]
    grid = {"method": "grid", "site": "inputs", "keep_ratio": 0.25}
    model, batches = family.model(grid), batches_of(family)
    reducer = model.token_reduction.reducers["inputs"]
    found = answers_kept(model, {"grid": always("inputs", reducer), "none": lambda attention: {}}, batches)
    expected = torch.cat([answers_of(model, batch, None) == answers_of(model, batch, grid) for batch in batches])
    assert found == {"grid": expected.double().mean().item(), "none": 1.0}
    assert 0 < found["grid"] < 1  # else this test shows nothing


@pytest.mark.parametrize("name", FAMILIES)
def test_a_given_attention_is_the_choice(name):
    """Without diversity the patches with the highest attention stay, padding last."""
    family = FAMILIES[name]
    model, inputs = family.model(), family.inputs()
    seen = observe(model, inputs, [2])
    config = parse_method({**PART, "diversity": None})
    with torch.no_grad(), model.token_reduction.using({"inputs": GivenReducer(config, seen.attention[2]).eval()}):
        (trace,) = model(**inputs).reduction
    kept = trace.keep[:, 1:] - 1
    highest = seen.attention[2].topk(4).indices.sort(dim=1).values
    assert torch.equal(kept, highest)


@pytest.mark.parametrize(("name", "seed"), [("vilt", 6), ("vilt", 1), ("meter", 0)])
def test_the_chosen_layer_keeps_most_answers(name, seed):
    """With seed 6 two layers of ViLT are equal, and the first one is chosen."""
    family = FAMILIES[name]
    model, batches = family.model(seed=seed), batches_of(family, 8)
    layer, kept = choose_layer(model, CONFIG, batches)
    assert list(kept) == [0, 1, 2, 3, "all"]
    assert len(set(kept.values())) > 1
    assert layer == next(target for target, share in kept.items() if share == max(kept.values()))
    alone = answers_kept(model, {"one": given(parse_method({**PART, "keep_ratio": 1 / 9}), 2)}, batches, [2])
    assert kept[2] == alone["one"]


@pytest.mark.parametrize("name", FAMILIES)
def test_all_layers_are_the_mean_of_each(name):
    family = FAMILIES[name]
    base = base_of(family.model())
    (seen,) = base.observe(family.inputs(), ["all", 1], CONFIG)
    layers = [seen.attention[layer] for layer in base.layers]
    torch.testing.assert_close(seen.attention["all"], sum(layers) / len(layers))
    torch.testing.assert_close(seen.attention["all"].sum(dim=1), torch.ones(3))
    (alone,) = base.observe(family.inputs(), [1], CONFIG)
    assert list(alone.attention) == [1]


def test_a_scorer_can_predict_all_layers(tmp_path):
    family = FAMILIES["vilt"]
    model = family.model()
    add_scorer(model, {**PART, "target_layer": "all"})
    rows = [{name: value[row] for name, value in family.inputs().items()} for row in range(3)]
    args = ScorerTrainingArguments(
        output_dir=str(tmp_path), max_steps=30, learning_rate=1e-2, use_cpu=True, report_to="none", logging_steps=1
    )
    trainer = ScorerTrainer(model, args=args, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    (row, *_) = budget_rows(model, "all", batches_of(family), family.inputs(), seconds=0.1)
    assert "target" in row.methods


@pytest.mark.parametrize("value", [-1, True, "every", 1.5])
def test_a_target_is_a_layer_or_all(value):
    with pytest.raises(ValueError, match="reduction.target_layer"):
        parse_method({**PART, "target_layer": value})


def test_the_rivals_keep_as_many_patches():
    family = FAMILIES["vilt"]
    model, inputs = family.model(), family.inputs()
    add_scorer(model, PART)
    for number in (1, 2, 4, 5, 8):
        found = rivals(model, CONFIG, number, 16)
        assert set(found) == {"diverse", "tome", "random"}
        for rival in found.values():
            with torch.no_grad(), model.token_reduction.using({"inputs": rival}):
                (trace,) = model(**inputs).reduction
            assert trace.num_image == 1 + number


@pytest.mark.parametrize("name", FAMILIES)
def test_the_rows_of_the_table(name):
    family = FAMILIES[name]
    model, batches = family.model(), batches_of(family)
    reducer = add_scorer(model, PART)
    rows = budget_rows(model, 1, batches, batches[0], seconds=0.01)
    assert [row.kept for row in rows] == list(BUDGETS)
    assert [row.num_patches for row in rows] == [8, 5, 4, 2]
    for row in rows:
        assert list(row.methods) == ["lookahead", "diverse", "tome", "random", "target"]
        assert all(0 <= share <= 1 for share in row.methods.values())
        assert row.speed > 0
    assert model.token_reduction.reducers == {"inputs": reducer}
    assert reducer.config == CONFIG
    model.set_reduction({**PART, "keep_ratio": 1 / 3})
    with torch.no_grad():
        mine = [model(**{**batch, "labels": None}).logits.argmax(-1) for batch in batches]
    whole = [answers_of(model, batch, None) for batch in batches]
    assert rows[1].methods["lookahead"] == (torch.cat(mine) == torch.cat(whole)).double().mean().item()


@pytest.mark.parametrize("head", ["base_class", "retrieval_class", "images_class"])
def test_a_model_without_answers_is_refused(head):
    family = FAMILIES["vilt"]
    values = {"num_images": 2, "modality_type_vocab_size": 3} if head == "images_class" else {}
    model = getattr(family, head)(family.config(**values)).eval()
    with pytest.raises(ValueError, match=type(model).__name__):
        answers_kept(model, {}, batches_of(family))


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="no batch"):
        answers_kept(FAMILIES["vilt"].model(), {}, [])


# The report


def report(mine, diverse):
    row = BudgetRow("1/9", 4, {"lookahead": mine, "diverse": diverse, "target": 0.5}, 2.125)
    return ScorerReport({"0": 0.25, "1": 0.75}, 1, (row,), 400, 64, Environment.current())


def test_the_report_is_read_as_it_was_written(tmp_path):
    report(0.9, 0.8).save(tmp_path / "results.json")
    assert ScorerReport.load(tmp_path / "results.json") == report(0.9, 0.8)


def test_the_table_shows_what_was_measured():
    table, note, *rest = report(0.9, 0.8).lines()
    header, row = table.splitlines()
    assert header.split()[:2] == ["patches", "kept"]
    assert row.split() == ["1/9", "(4)", "90.0", "%", "80.0", "%", "50.0", "%", "2.12x"]
    assert "400" in note
    assert rest == []


def test_a_scorer_that_loses_to_diversity_is_told():
    *_, line = report(0.7, 0.8).lines()
    assert "70.0 %" in line
    assert "80.0 %" in line
    assert "4 patches" in line
