import pytest

from pumer_hf.results import PERCENT, Evaluation, Metric, MetricType, best_of

LOSS = MetricType("nats", higher_is_better=False)


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        (Metric(93.674, "%"), "93.67 %"),
        (Metric(0.375, "points"), "0.38 points"),
        (Metric(0.123456), "0.1235"),
        (Metric(12345.6, "tokens/s"), "12,346 tokens/s"),
    ],
)
def test_a_metric_prints_by_its_unit(metric, shown):
    assert str(metric) == shown


@pytest.mark.parametrize(
    ("metric", "other", "change"),
    [
        (Metric(79.25, "%"), Metric(80.0, "%"), "-0.75 points"),
        (Metric(0.5, "nats"), Metric(0.25, "nats"), "+0.25 nats"),
        (Metric(3.0), Metric(4.5), "-1.5"),
    ],
)
def test_a_change_has_a_sign_and_a_unit(metric, other, change):
    assert metric.change_from(other) == change


def test_better_is_higher_or_lower():
    assert PERCENT.of(2).is_better_than(PERCENT.of(1))
    assert LOSS.of(1).is_better_than(LOSS.of(2))
    assert not LOSS.of(1).is_better_than(LOSS.of(1))
    assert best_of([LOSS.of(2), LOSS.of(1), LOSS.of(3)]) == LOSS.of(1)
    assert best_of([PERCENT.of(2), PERCENT.of(3)]) == PERCENT.of(3)
    assert best_of([]) is None


def test_a_label_says_unit_and_direction():
    assert PERCENT.label("mean_recall") == "mean recall, %"
    assert LOSS.label("cross_entropy") == "cross entropy (lower is better), nats"
    assert MetricType().label("score") == "score"


def test_an_evaluation_has_metrics_counts_and_metrics_by_kind():
    values = {"accuracy": 50.0, "questions": 4, "accuracy_by_kind": {"count": 25.0}, "loss": 2}
    evaluation = Evaluation.from_dict(values, {"accuracy": PERCENT, "loss": LOSS})
    assert evaluation.metrics == {"accuracy": PERCENT.of(50.0), "loss": LOSS.of(2)}
    assert evaluation.counts == {"questions": 4}
    assert evaluation.by_kind == {"accuracy": {"count": PERCENT.of(25.0)}}
    assert (evaluation.main_name, evaluation.main) == ("accuracy", PERCENT.of(50.0))
    assert evaluation.to_dict() == values


@pytest.mark.parametrize("values", [{"accuracy": 1.0, "bleu": 2.0}, {"accuracy": 1.0, "bleu_by_kind": {"a": 2.0}}])
def test_a_figure_without_unit_is_an_error(values):
    with pytest.raises(ValueError, match=r"'bleu.*accuracy"):
        Evaluation.from_dict(values, {"accuracy": PERCENT})


def test_the_mean_of_evaluations():
    first, second = (
        Evaluation({"loss": LOSS.of(value)}, {"questions": 4}, {"loss": {"count": LOSS.of(2 * value)}})
        for value in (1.0, 2.0)
    )
    mean = Evaluation.mean([first, second])
    assert mean == Evaluation({"loss": LOSS.of(1.5)}, {"questions": 4}, {"loss": {"count": LOSS.of(3.0)}})
