import sys

import pytest

from pumer_hf.metrics.modules import NAMES, load_metric, metric_path

evaluate = pytest.importorskip("evaluate")

TEN = [["cup"] * 3 + ["mug"] * 3 + ["jar"] * 4, ["yes"] * 10]
LABELS = [{"label": 1, "sentence": "a"}, {"label": 0, "sentence": "a"}, {"label": 1, "sentence": "b"}]


def test_vqa_accuracy():
    metric = load_metric("vqa_accuracy")
    assert metric.compute(predictions=["cup", "Yes"], references=TEN) == {"vqa_accuracy": pytest.approx(45)}
    assert metric.compute(predictions=["cup", "Yes"], references=TEN, version="2017") == {
        "vqa_accuracy": pytest.approx(95)
    }


def test_nlvr2():
    result = load_metric("nlvr2").compute(predictions=[1, 1, 1], references=LABELS)
    assert result == {"accuracy": pytest.approx(200 / 3), "consistency": 50}


def test_retrieval_recall():
    metric, scores = load_metric("retrieval_recall"), [[1.0, 0.0], [1.0, 0.0]]
    result = metric.compute(predictions=scores, references=[0, 1])
    assert result["text_to_image_recall@1"] == 50
    assert result["image_to_text_recall@1"] == 50  # caption 0 ties with caption 1
    assert result["text_to_image_recall@5"] == 100
    same = metric.compute(predictions=scores, references=[0, 1], captions=["a dog", "a dog"])
    assert same["mean_recall"] == 100


def test_accuracy():
    assert load_metric("accuracy").compute(predictions=[1, 2, 0, 0], references=[1, 2, 0, 1]) == {"accuracy": 75}


def test_batches_add_up():
    metric = load_metric("vqa_accuracy")
    for prediction, answers in zip(["cup", "yes"], TEN, strict=True):
        metric.add_batch(predictions=[prediction], references=[answers])
    assert metric.compute() == {"vqa_accuracy": pytest.approx(95)}


@pytest.mark.parametrize("name", NAMES)
def test_every_module_loads_by_its_path(name):
    assert evaluate.load(metric_path(name)).name == name


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="name='bleu': "):
        load_metric("bleu")


def test_without_evaluate_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate", None)
    with pytest.raises(ImportError, match=r"pip install .*evaluate"):
        load_metric("accuracy")
