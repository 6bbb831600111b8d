"""Elastic students in recipes: what is checked before, and what is reported after the training."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from tiny_tasks import REDUCTION, tiny

from pumer_hf.bench.cost import measure_sizes
from pumer_hf.data.vqa import VqaDataArguments
from pumer_hf.hub.card import CURVE_NAME, PuMerCard
from pumer_hf.hub.curve import draw_curve
from pumer_hf.recipes.checks import check_elastic
from pumer_hf.recipes.elastic import elastic_evaluations, elastic_results
from pumer_hf.recipes.recipe import ModelArguments, Recipe, RecipeTrainingArguments
from pumer_hf.recipes.report import format_report
from pumer_hf.results import PERCENT, Evaluation, Report

NUM_KEEP = {"method": "diverse", "site": "inputs", "num_keep": 4}


@pytest.mark.parametrize(
    ("reduction", "arguments", "message"),
    [
        (None, {}, "no reduction to scale"),
        (NUM_KEEP, {}, "num_keep=4: .*keep_ratio"),
        ([NUM_KEEP, REDUCTION], {}, "num_keep=4: .*keep_ratio"),
        (REDUCTION, {"max_steps": 0}, "max_steps: 0"),
    ],
)
def test_what_an_elastic_student_needs(reduction, arguments, message, tmp_path):
    values = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "elastic": [0.5, 1.0], **arguments}
    recipe = Recipe(
        ModelArguments(image_size=16), reduction, VqaDataArguments(), RecipeTrainingArguments(**values), values
    )
    with pytest.raises(ValueError, match=rf"training.elastic=\[0.5, 1.0\]: .*{message}"):
        check_elastic(recipe)
    check_elastic(replace(recipe, training=replace(recipe.training, elastic=None)))


@pytest.fixture(scope="module")
def measured():
    """The results of a tiny student from 0.2 to 1, and the parts of its schedule at which it was evaluated."""
    teacher, processor = tiny("vilt", reduction=None)
    student, _ = tiny("vilt", reduction=REDUCTION)
    inputs = dict(processor(images=[Image.new("RGB", (32, 32))] * 2, text=["a"] * 2, return_tensors="pt"))
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    seen = []

    def evaluate():
        seen.append(student.reduction.at("layers").ratio("prune_ratio", 0) / 0.1)
        return Evaluation.from_dict({"accuracy": 90.0 - len(seen)}, {"accuracy": PERCENT})

    examples = {name: {key: value[:1] for key, value in inputs.items()} for name in ("teacher", "student")}
    models, batches = {"teacher": teacher, "student": student}, {"teacher": inputs, "student": inputs}
    evaluations = elastic_evaluations([0.2, 1.0], student, evaluate)
    elastic = elastic_results(evaluations, models, batches, examples, seconds=0.01)
    assert student.reduction == student.config.schedule  # all of it again
    return elastic, seen, measure_sizes(models, examples)


def test_an_elastic_student_is_measured_at_five_factors(measured):
    elastic, seen, sizes = measured
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [point.factor for point in elastic.points] == pytest.approx(seen)
    assert [point.metric.value for point in elastic.points] == [89, 88, 87, 86, 85]
    gains = [point.gflops_gain for point in elastic.points]
    assert gains == sorted(gains)
    assert gains[-1] == pytest.approx(sizes.gflops_gain)
    assert all(point.speed > 0 for point in elastic.points)


def test_the_report_and_the_card_have_all_speeds_and_a_picture(measured, tmp_path):
    elastic, _, sizes = measured
    teacher = Evaluation.from_dict({"accuracy": 91.0}, {"accuracy": PERCENT})
    assert elastic.cost.throughput is not None
    speeds = {
        name: elastic.cost.throughput.speeds[one] for name, one in {"teacher": "teacher", "student": "1"}.items()
    }
    cost = replace(sizes, throughput=replace(elastic.cost.throughput, speeds=speeds))
    report = Report({"teacher": teacher, "student": elastic.evaluations["1"]}, elastic=elastic, cost=cost)
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert Report.from_dict(Report().to_dict()).elastic is None
    lines = format_report(report).splitlines()
    assert [line.split()[:2] for line in lines[-5:]] == [
        ["20%", "89.00"],
        ["40%", "88.00"],
        ["60%", "87.00"],
        ["80%", "86.00"],
        ["100%", "85.00"],
    ]
    picture = draw_curve(elastic, teacher.main, "accuracy")
    assert len(picture.getcolors(1 << 20)) > 3
    picture.save(tmp_path / CURVE_NAME)
    card = PuMerCard(name="x", backbone="vilt", task="vqa", reduction=REDUCTION, report=report)
    card.save(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| 60% | 87.00 % |" in text
    assert f"]({CURVE_NAME})" in text
    assert "| 60% |" not in replace(card, role="teacher").render()
