"""The whole report: of a model that keeps what it is asked about, of digit scenes, and of the command."""

import json

import pytest
import torch
from readable import unreadable
from tiny_models import FAMILIES
from tiny_tasks import REDUCTION, save_tiny, tiny
from tiny_vqa_hat import save_vqa_hat
from torch import nn

from pumer_hf import ops
from pumer_hf.cli import main
from pumer_hf.data.scenes.digits import digit_scenes
from pumer_hf.measures.batches import scene_batches
from pumer_hf.measures.measuring import MeasuredBatch, alignment_report, measure_explanations
from pumer_hf.measures.report import ExplanationReport, Explanations, LayerAlignment
from pumer_hf.reducers import TokenReducer, parse_method
from pumer_hf.tokens import LayerTrace, TokenPair

NAMES = ("precision", "recall", "random_precision", "random_recall")
PRUNING = {"method": "pumer", "layers": [1], "prune_ratio": 0.4, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}


class Oracle(TokenReducer):
    """Keeps the patches that it is told, the same for every example."""

    def __init__(self, region):
        super().__init__(parse_method(PRUNING), 0)
        self.region = region

    def output_lengths(self, layer, num_text, num_image):
        return num_text, 1 + int(self.region.sum())

    def forward(self, layer, pair, evidence):
        mask = pair.image.mask
        saliency = torch.cat([torch.zeros(1), self.region.flatten().float()]).expand(len(mask), -1)
        keep = ops.keep_salient(saliency, mask, 1 + int(self.region.sum()))
        image = pair.image.move(ops.keep_positions(keep, mask.shape[1]), keep.shape[1])
        trace = LayerTrace(layer, mask.shape[1], keep.shape[1], pair.text.source, image.source, saliency, keep)
        return TokenPair(pair.text, image), trace


def values_of(layer):
    return [getattr(layer, name) for name in NAMES]


def region_of(*tokens):
    region = torch.zeros(16, dtype=torch.bool)
    region[list(tokens)] = True
    return region.view(4, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_keeps_what_it_is_asked_about(family):
    region = region_of(0, 1, 4)  # no padding in any example
    model, inputs = FAMILIES[family].model(PRUNING), FAMILIES[family].inputs()
    inputs.pop("pixel_mask", None)
    model.base_model.reducer = Oracle(region)
    report = measure_explanations(model, [MeasuredBatch(inputs, region.expand(3, 1, 4, 4))])
    (layer,) = report.layers
    assert (layer.layer, layer.examples) == (1, 3)
    assert values_of(layer) == pytest.approx([100, 100, 300 / 16, 300 / 16])
    assert report.accuracy == report.faithfulness == {}  # no labels
    assert "sufficiency" not in str(report)
    other = measure_explanations(model, [MeasuredBatch(inputs, region_of(0, 15).expand(3, 1, 4, 4))]).layers[0]
    assert values_of(other) == pytest.approx([100 / 3, 50, 200 / 16, 300 / 16])


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_that_need_what_is_kept(family):
    """Labels are the answers of one reducer, so that its accuracy is 100 % and what differs from it loses."""
    model, inputs = FAMILIES[family].model(PRUNING), FAMILIES[family].inputs()
    with torch.no_grad():
        answers = model(**inputs).logits.argmax(-1)
    batch = MeasuredBatch(inputs, region_of(0).expand(3, 1, 4, 4), answers)
    report = measure_explanations(model, [batch] * 2, seed=1)
    accuracy = {name: metric.value for name, metric in report.accuracy.items()}
    assert accuracy["reduced"] == 100
    assert set(accuracy) == {"unreduced", "reduced", "random", "inverted", "random_inverted"}
    for measure, reducer in {"sufficiency": "reduced", "comprehensiveness": "inverted"}.items():
        assert report.faithfulness[measure].value == accuracy["unreduced"] - accuracy[reducer]
    soft = nn.functional.one_hot(answers, model.config.num_labels).float() * 0.3
    assert measure_explanations(model, [batch._replace(labels=soft)]).accuracy["reduced"].value == pytest.approx(30)
    assert report.examples == 6
    assert Explanations.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_training_mode_and_padding():
    model, inputs = FAMILIES["vilt"].model(PRUNING).train(), FAMILIES["vilt"].inputs()
    regions = torch.ones(3, 1, 4, 4, dtype=torch.bool)
    report = measure_explanations(model, [MeasuredBatch(inputs, regions)])
    assert model.training
    # Regions are all of each image, its padding left out: 9 of 16, 9 of 12 and 4 of 4 patches are held.
    expected = [100, 100 * (9 / 16 + 9 / 12 + 1) / 3]
    assert values_of(report.layers[0]) == pytest.approx(expected * 2)


def test_the_mean_over_examples_and_annotators_by_hand():
    values = torch.tensor(
        [[[0.5, 0.1], [torch.nan, 0.3], [torch.nan, torch.nan]]]
    ).double()  # three examples, two each
    report = alignment_report({("layers", 2): [values.expand(4, 3, 2)[:, :1], values.expand(4, 3, 2)[:, 1:]]})
    layer = LayerAlignment(2, **dict.fromkeys(NAMES, pytest.approx(35.0)), examples=2)  # of 50 % and (10 % + 30 %) / 2
    assert report == Explanations((layer,), examples=3, without_region=1, annotators=2)
    alone = torch.cat([values, torch.full_like(values[..., :1], torch.nan)], dim=2)  # a third who marked nothing
    assert alignment_report({("layers", 2): [alone.expand(4, 3, 3)]}).layers == (layer,)


def test_without_any_region_nothing_can_be_measured():
    model, inputs = FAMILIES["meter"].model(PRUNING), FAMILIES["meter"].inputs()
    nothing = MeasuredBatch(inputs, torch.zeros(3, 1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="regions: .*empty.* 3 examples"):
        measure_explanations(model, [nothing])
    with pytest.raises(ValueError, match="batches: .*no example"):
        measure_explanations(model, [])
    for labels in ([None, torch.zeros(3).long()], [torch.zeros(3).long(), None]):
        with pytest.raises(ValueError, match="labels: .*all batches"):
            measure_explanations(model, [nothing._replace(labels=own) for own in labels])
    model.set_reduction(None)
    with pytest.raises(ValueError, match="reduces no tokens"):
        measure_explanations(model, [nothing])
    with pytest.raises(ValueError, match="takes several images"):
        measure_explanations(tiny("meter", "nlvr2")[0], [nothing])


def test_the_regions_of_digit_scenes_are_their_cells():
    model, processor = tiny("vilt")
    batches = list(scene_batches(model, processor, num_scenes=3, batch_size=5))
    assert [len(batch.regions) for batch in batches] == [5, 5, 2]
    rows = digit_scenes("test", 3, grid_size=6)
    regions = torch.cat([batch.regions for batch in batches])[:, 0].flatten(1)
    assert [region.nonzero().flatten().tolist() for region in regions] == rows["cells"][:]
    labels = list(model.config.id2label.values())
    known = torch.cat([batch.labels for batch in batches]).sum(dim=1)
    assert known.tolist() == [float(answer in labels) for answer in rows["answer"]]


def test_a_model_that_knows_no_digit_scenes_is_an_error():
    with pytest.raises(ValueError, match="no row .*3 labels"):
        scene_batches(*tiny("vilt", "snli_ve"))
    model, processor = tiny("vilt", image_size=44, patch_size=4)
    with pytest.raises(ValueError, match="config.image_size=44: .*multiple of 8"):
        scene_batches(model, processor)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_the_command_on_digit_scenes(backbone, tmp_path, capsys):
    checkpoint, out = save_tiny(tmp_path / "model", backbone), tmp_path / "out.json"
    assert main(["measure", checkpoint, "--scenes", "3", "--batch-size", "7", "-o", str(out)]) == 0
    table, report = capsys.readouterr().out.splitlines(), json.loads(out.read_text())
    assert unreadable(table) == []
    assert table[-1] == f"Written to {out}"
    assert (report["checkpoint"], report["data"]) == (checkpoint, "digit scenes")
    assert report["reduction"]["layers"] == [layer["layer"] for layer in report["layers"]] == REDUCTION["layers"]
    assert report["examples"] == 12
    assert {"sufficiency", "comprehensiveness", "random_sufficiency", "random_comprehensiveness"} < set(report)
    assert ExplanationReport.load(out).to_dict() == report
    assert report["versions"]["torch"] == torch.__version__
    for layer in report["layers"]:
        assert any(line.startswith(f"after layer {layer['layer']} ") for line in table)
    assert f"Accuracy: {report['accuracy']['unreduced']:.2f} % unreduced" in "\n".join(table)


def test_the_command_on_vqa_hat(tmp_path, capsys):
    hat = save_vqa_hat(tmp_path)
    checkpoint = save_tiny(tmp_path / "model", "vilt", reduction=None)
    data = ["--vqa-hat", hat["maps"], "--questions", hat["questions"], "--images", hat["image_dir"]]
    arguments, out = ["measure", checkpoint, "--reduction", json.dumps(PRUNING), *data], tmp_path / "out.json"
    assert main([*arguments, "-o", str(out)]) == 0
    table, report = capsys.readouterr().out.splitlines(), json.loads(out.read_text())
    assert (report["data"], report["examples"], report["annotators"]) == ("VQA-HAT", 2, 2)
    assert "2 examples with a region, mean of 2 annotators" in "\n".join(table)
    # The first annotator marked half of one image, the second half of one and one patch of 36 of the other.
    assert report["layers"][0]["random_precision"] == pytest.approx(100 * (1 / 2 + (1 / 2 + 1 / 36) / 2) / 2)
    assert "accuracy" not in report
    assert main([*arguments, "--annotations", hat["annotations"], "--limit", "1", "-o", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["examples"] == 1
    assert set(report["accuracy"].values()) <= {0.0, 50.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reduction", '{"method": "none"}'], "config.reduction is None"),
        (["-o", "no/such/out.json"], "-o no/such/out.json: "),
        (["--scenes", "0"], "num_scenes=0"),
        (["--batch-size", "0"], "batch_size=0: "),
        (["--questions", "q.json", "--limit", "3"], "--questions, --limit: "),
        (["--vqa-hat", "maps"], "--questions and --images"),
        (["--vqa-hat", "maps", "--questions", "q", "--images", "i", "--scenes", "3"], "no --scenes"),
        (["--vqa-hat", "maps", "--questions", "q", "--images", "i"], "maps: there is no"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt")
    assert main(["measure", checkpoint, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
