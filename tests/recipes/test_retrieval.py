"""Evaluation: retrieval by all pairs, and metrics of all rows, on one process and on two."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import PUMER, meter_fields, vilt_fields

from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL, RetrievalDataArguments, group_by_image
from pumer_hf.data.scoring import evaluate_retrieval, score_all
from pumer_hf.metrics.retrieval import recall_at_k
from pumer_hf.models.encoders.heads import RetrievalHead
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.program import leaving_group
from pumer_hf.recipes.recipe import ModelArguments, RecipeTrainingArguments

SHARED = {"initializer_range": 0.4, "reduction": {**PUMER, "layers": [1]}}
CONFIGS = {
    "vilt": vilt_fields(image_size=32, max_position_embeddings=32, **SHARED),
    "meter": meter_fields({"max_position_embeddings": 34}, {"image_size": 32, "initializer_range": 0.4}, **SHARED),
}


def prepare(task, backbone="vilt", **arguments):
    torch.manual_seed(0)
    args = task.arguments(train_scenes=8, grid_size=4, max_text_length=32, **arguments)
    data = task.load(args, None)
    model_args = ModelArguments(backbone=backbone, config=CONFIGS[backbone])
    model, processor = build_teacher(model_args, data.labels, task.texts(data.train), 32, task)
    return model, data, task.collator(processor, data, args, False)


def evaluations(folder):
    """What two tasks are scored with; 7 images and 14 captions, and 10 rows in batches of 4."""
    from pumer_hf.recipes.run_results import evaluate

    args = RecipeTrainingArguments(
        output_dir=folder, per_device_eval_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True
    )
    model, data, collator = prepare(RETRIEVAL, eval_scenes=7)
    results = {"scores": score_all(args, model, data.test, collator).tolist()}
    model, data, collator = prepare(NLVR2, eval_scenes=5)
    results["nlvr2"] = evaluate(NLVR2, args, model, data, collator).to_dict()
    if args.process_index == 0:
        results["world_size"] = args.world_size
        with open(f"{folder}/results.json", "w") as file:
            json.dump(results, file)
    return results


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return evaluations(str(tmp_path_factory.mktemp("alone")))


def test_every_caption_is_scored_with_every_image(alone):
    model, data, collator = prepare(RETRIEVAL, eval_scenes=7)
    scores = np.array(alone["scores"])
    assert scores.shape == (14, 7)
    for text, image in [(0, 0), (5, 2), (13, 6), (3, 5)]:
        caption = data.test[text // 2]["captions"][text % 2]
        row = {**data.test[image], "captions": [caption]}
        pair = collator.for_benchmark()([row])
        with torch.no_grad():
            assert scores[text, image] == pytest.approx(model.eval()(**pair).logits.item(), abs=1e-5)


@pytest.mark.parametrize("tower", [[], [{"method": "tome", "site": "tower", "merge_ratio": 0.25}]])
def test_meter_encodes_each_caption_and_each_image_once(training_args, tower):
    model, data, collator = prepare(RETRIEVAL, "meter", eval_scenes=3)
    model.set_reduction([{**PUMER, "layers": [1]}, *tower])
    encoded = {"text_model": 0, "vision_model": 0}

    def count(module, inputs, kwargs, output):
        name = "text_model" if module is model.meter.text_model else "vision_model"
        encoded[name] += len(kwargs["input_ids"] if name == "text_model" else inputs[0])

    for name in encoded:
        getattr(model.meter, name).register_forward_hook(count, with_kwargs=True)
    scores = score_all(training_args, model, data.test, collator)
    assert scores.shape == (6, 3)
    assert encoded == {"text_model": 6, "vision_model": 3 + 1}  # one image more for the estimate of the cost
    for text, image in [(0, 0), (5, 1), (2, 2)]:
        row = {**data.test[image], "captions": [data.test[text // 2]["captions"][text % 2]]}
        with torch.no_grad():
            logits = model.eval()(**collator.for_benchmark()([row])).logits
        # on processors whose kernels round by the size of a batch, tokens that are almost equal may merge otherwise
        assert scores[text, image] == pytest.approx(logits.item(), abs=2e-3)


def test_two_processes_score_exactly_what_one_does(alone, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # of which pytest made a part
    process = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=240, env=env, check=False
    )
    assert process.returncode == 0, process.stderr
    two = json.loads((tmp_path / "results.json").read_text())
    assert (alone["world_size"], two["world_size"]) == (1, 2)
    np.testing.assert_allclose(two["scores"], alone["scores"], atol=1e-6)
    assert two["nlvr2"]["questions"] == 10  # 3 batches of 4, of which the last was filled up
    assert two["nlvr2"] == alone["nlvr2"]


@pytest.fixture
def training_args(tmp_path):
    return RecipeTrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=False
    )


def test_the_cost_is_said_before_and_progress_is_shown(training_args, capsys):
    model, data, collator = prepare(RETRIEVAL, eval_scenes=3)
    report = evaluate_retrieval(training_args, model, data.test, collator)
    printed = capsys.readouterr()
    assert "Scoring 18 pairs: " in printed.out
    assert "GFLOPs each" in printed.out
    assert re.search(r", about [\d.]+ (ms|s|min)( \d+ s)? on 1 process\n", printed.out)
    assert "Scoring images" in printed.err
    assert (report["images"], report["captions"]) == (3, 6)
    scores = score_all(training_args, model, data.test, collator)
    assert {name: value for name, value in report.items() if "recall" in name} == recall_at_k(
        scores, [0, 0, 1, 1, 2, 2]
    )


class Oracle(torch.nn.Module):
    """Scores a pair by whether the image has that caption."""

    def __init__(self, rows, collator):
        super().__init__()
        self.shown = [collator.for_benchmark()([row])["pixel_values"] for row in rows]
        self.own = [
            {tuple(collator.encoder.processor.tokenizer(text).input_ids) for text in row["captions"]} for row in rows
        ]

    encode_texts, encode_images = RetrievalHead.encode_texts, RetrievalHead.encode_images

    def score(self, texts, images):
        pixel_values = images["pixel_values"][:1]
        ids_and_masks = zip(texts["input_ids"], texts["attention_mask"], strict=True)
        image = next(number for number, pixels in enumerate(self.shown) if torch.equal(pixels, pixel_values))
        texts = [tuple(ids[mask.bool()].tolist()) for ids, mask in ids_and_masks]
        return torch.tensor([float(text in self.own[image]) for text in texts])


def test_recall_is_whole_where_the_model_knows(training_args):
    """The owners reach recall_at_k in order."""
    _, data, collator = prepare(RETRIEVAL, eval_scenes=4)
    report = evaluate_retrieval(training_args, Oracle(data.test, collator), data.test, collator)
    assert report["mean_recall"] == 100


def test_recall_is_whole_where_a_dataset_has_a_row_for_each_caption(training_args):
    _, data, collator = prepare(RETRIEVAL, eval_scenes=12)
    rows = [{**row, "captions": [caption]} for row in data.test for caption in row["captions"]]
    dataset = group_by_image(Dataset.from_list(rows, features=data.test.features))
    report = evaluate_retrieval(training_args, Oracle(dataset, collator), dataset, collator)
    assert (report["images"], report["captions"]) == (12, 24)
    assert report["mean_recall"] == 100


def test_recall_is_whole_where_images_share_a_caption(training_args):
    _, data, collator = prepare(RETRIEVAL, eval_scenes=12)
    shared = data.test[0]["captions"][0]
    dataset = data.test.map(lambda row: {"captions": [row["captions"][0], shared]})
    report = evaluate_retrieval(training_args, Oracle(dataset, collator), dataset, collator)
    assert report["mean_recall"] == pytest.approx(100)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_scores_under_bf16_do_not_tie(backbone, tmp_path):
    args = RecipeTrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=32, use_cpu=True, bf16=True, report_to="none"
    )
    args.disable_tqdm = True
    model, data, collator = prepare(RETRIEVAL, backbone, eval_scenes=12)
    scores = score_all(args, model, data.test, collator)
    assert scores.dtype == np.float32
    assert scores.shape == (24, 12)
    different = 12 * len({caption for captions in data.test["captions"] for caption in captions})
    assert len(np.unique(scores)) > 0.98 * different


def test_negatives_default_to_fifteen():
    assert RetrievalDataArguments().num_negatives == 15


if __name__ == "__main__":
    with leaving_group():
        evaluations(sys.argv[1])
