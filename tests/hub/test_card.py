"""Model cards: what they say, what they leave out, and that their examples run."""

import json
import re
import shlex
from dataclasses import replace

import pytest
import tiny_models
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from pumer_hf import PuMerCard
from pumer_hf.cli import main
from pumer_hf.data.vqa import VqaDataArguments
from pumer_hf.models.encoders.meter import PuMerMeterProcessor
from pumer_hf.models.encoders.meter.processing import build_roberta_tokenizer
from pumer_hf.models.encoders.vilt.processing import build_bert_tokenizer
from pumer_hf.recipes.cards import dataset_facts
from pumer_hf.results import Command, Cost, Evaluation, Metric, Report

TASKS = {
    "vqa": ("model_class", {}),
    "nlvr2": ("images_class", {"num_images": 2, "modality_type_vocab_size": 3, "num_labels": 2}),
    "snli_ve": ("entailment_class", {"num_labels": 3}),
    "retrieval": ("retrieval_class", {}),
    None: ("base_class", {}),
}
VALUES = {
    "teacher": {"accuracy": 81.0, "questions": 40},
    "student": {"accuracy": 80.123, "questions": 40},
    "throughput": {
        "ratio": 1.5,
        "batch_size": 8,
        "rounds": 9,
        "regime": "forward, inference_mode",
        "teacher": {"examples_per_second": 1000.4, "slowest": 990.0, "fastest": 1010.0, "ratio": 1.0},
        "student": {"examples_per_second": 1500.6, "slowest": 1490.0, "fastest": 1510.0, "ratio": 1.5},
    },
    "gflops": {"ratio": 2.0, "teacher": 2.0, "student": 1.0},
    "tokens_per_layer": {"teacher": [[9, 17], [9, 17]], "student": [[9, 17], [7, 11]]},
    "baselines": {"question_only": 30.0},
    "versions": {"torch": "2.13.0"},
    "machine": {"processor": "Some CPU", "torch_threads": 2, "system": "Linux x86_64"},
    "command": "train_vqa.py",
}
REPORT = Report.from_dict(VALUES)


def run_by(program, *arguments, **machine):
    """The report of a run with such a command."""
    environment = REPORT.environment
    command, machine = Command(program, arguments), replace(environment.machine, **machine)
    return replace(REPORT, environment=replace(environment, command=command, machine=machine))


def card(**facts):
    values = {"name": "mine", "backbone": "vilt", "task": "vqa", "reduction": tiny_models.schedule("pumer", "small")}
    return PuMerCard(**{**values, **facts})


def trained(**facts):
    dataset = {"name": "my data", "id": "user/my-data", "split": "test", "revision": "abc"}
    return card(report=REPORT, dataset=dataset, base_model="dandelin/vilt-b32-mlm", **facts)


def test_merging_in_the_image_tower_is_said():
    schedule = tiny_models.schedule("pumer", "small")
    reductions = (schedule, [schedule, {"method": "tome", "site": "tower", "merge_ratio": 0.2}])
    plain, tower = (trained(backbone="meter", reduction=reduction).render() for reduction in reductions)
    assert tower == trained(backbone="meter", reduction={**schedule, "image_tower_merge_ratio": 0.2}).render()
    sentences = ("layers of its image encoder merge similar tokens ([ToMe]", "and not that of the text encoder.")
    assert all(sentence in tower and sentence not in plain for sentence in sentences)
    assert "only in the cross-modal encoder" in plain
    assert "only in the cross-modal encoder" not in tower


def test_what_leaves_before_the_first_layer_is_said():
    reduction = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25}
    cost = Cost(tokens_per_layer={"student": [(9, 5), (9, 5)]}, tokens_in={"student": (9, 5)})
    rendered = card(reduction=reduction, report=Report(cost=cost)).render()
    assert "steps before its first layer drop the patches" in rendered
    assert "| (into the first) | 9 + 5 |" in rendered
    assert "token-pruning" in ModelCard(rendered).data.tags
    assert "token-merging" not in ModelCard(rendered).data.tags


def test_metadata_is_what_the_hub_reads():
    data = ModelCard(trained(license="mit").render()).data
    assert (data.base_model, data.datasets, data.license) == ("dandelin/vilt-b32-mlm", ["user/my-data"], "mit")
    assert data.pipeline_tag == "visual-question-answering"
    assert {"vilt", "token-pruning", "token-merging"} < set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.task_type) == (
        "accuracy",
        80.12,
        "visual-question-answering",
    )
    assert (result.dataset_type, result.dataset_name, result.dataset_split, result.dataset_revision) == (
        "user/my-data",
        "my data",
        "test",
        "abc",
    )


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("digit scenes", "digit-scenes"),
        ("easy-VQA", "easy-vqa"),
        ("My -- photos (2nd).", "my-photos-2nd"),
        ("вопросы", "unnamed"),
        ("x" * 200, "x" * 96),
    ],
)
def test_the_type_of_a_data_set_that_is_not_on_the_hub_is_a_legal_name(name, slug):
    text = card(report=REPORT, dataset={"name": name, "split": "test"}).render()
    data = ModelCard(text).data
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_type) == (name, slug)
    validate_repo_id(result.dataset_type)
    assert data.datasets is None


def test_the_command_is_whole_and_can_be_pasted_into_a_shell():
    flags = ["--checkpoint", "/home/me/teacher", "--x", '{"a": 1, "b": "it\'s"}', "--output_dir=/a/my run", "--resume"]
    text = card(report=run_by("train_vqa.py", "recipes/vilt/easy_vqa/pumer.yaml", *flags)).render()
    (line,) = re.findall(r"^- Command: `(.*)`$", text, re.MULTILINE)
    assert shlex.split(line) == [
        *("accelerate", "launch", "recipes/train_vqa.py", "recipes/vilt/easy_vqa/pumer.yaml"),
        *("--checkpoint", "teacher", "--x", '{"a": 1, "b": "it\'s"}', "--output_dir=my run"),
    ]


@pytest.mark.parametrize("resume", [["--resume"], ["--resume", "true"], ["--resume=true"]])
def test_the_command_of_a_run_that_was_resumed_starts_a_new_one(resume):
    flags = [*resume, "--seed", "1"]
    assert "recipes/train_vqa.py --seed 1`" in card(report=run_by("train_vqa.py", *flags)).render()
    assert "- Command: `pumer-hf train vqa --seed 1`" in card(report=run_by("pumer-hf", *TRAIN[:2], *flags)).render()
    assert f"`mine.py {' '.join(resume)} --seed 1`" in card(report=run_by("mine.py", *flags)).render()


def test_a_command_that_is_no_recipe_s_is_told_as_it_was():
    text = card(report=run_by("my_training.py", "--steps", "3")).render()
    assert "- Command: `my_training.py --steps 3`" in text


def test_the_command_of_several_processes_says_how_many():
    text = card(report=run_by("train_vqa.py", processes=4)).render()
    assert "- Command: `accelerate launch --num_processes 4 recipes/train_vqa.py`" in text


def test_the_command_of_the_package_is_told_with_the_launcher_that_it_needs():
    assert "- Command: `pumer-hf train vqa --seed 1`" in card(report=run_by("pumer-hf", *TRAIN)).render()
    several = card(report=run_by("pumer-hf", *TRAIN, processes=4)).render()
    assert "- Command: `accelerate launch --num_processes 4 -m pumer_hf train vqa --seed 1`" in several


TRAIN = ("train", "vqa", "--seed", "1")


def test_of_a_model_that_has_not_been_trained_the_card_says_how_to():
    launch = "accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/train_vqa.py"
    assert f"- Command: `{launch}`" in card(launch=launch).render()
    done = card(launch=launch, report=run_by("train_vqa.py", "--seed", "1")).render()
    assert "- Command: `accelerate launch recipes/train_vqa.py --seed 1`" in done


def test_text_has_results_speed_and_tokens():
    text = trained(teacher="user/my-teacher", training={"learning_rate": 3e-4}).render()
    for line in (
        "| accuracy | 81.00 % | 80.12 % |",
        "| examples/s | 1,000 | 1,501 |",
        "| speed, interleaved | 1.00x | 1.50x |",
        "| 1 | 9 + 17 | 7 + 11 |",
        "- Teacher: [user/my-teacher](https://huggingface.co/user/my-teacher)",
        "| `learning_rate` | 0.0003 |",
        "Baselines that see no image: question only 30.00 %.",
        "Speed: forward, inference_mode, batch 8, 9 interleaved rounds.",
        "torch 2.13.0. Measured on Some CPU, 2 threads (Linux x86_64).",
        "## Limits",
        "cao-etal-2023-pumer",
    ):
        assert line in text
    assert "not been trained" not in text
    assert "student (this model)" in text


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
@pytest.mark.parametrize("task", list(TASKS))
def test_what_is_unknown_is_left_out(backbone, task):
    """Nothing but a name: no empty fields, tables, links or headings, and no words that stand for a missing value."""
    text = PuMerCard("mine", backbone, task).render()
    assert "Nothing is recorded about how this model was trained" in text
    assert not re.search(r"\b(None|null|nan|TODO|More Information)\b|\[\]|\{\}|\| \|", text)
    for heading in ("## Results", "## Training", "## Versions", "## Which tokens"):
        assert heading not in text
    assert "\n\n\n" not in text
    assert ModelCard(text).data.eval_results is None


def test_of_a_teacher():
    text = (
        trained(role="teacher", reduction=None)
        .__class__("mine", "vilt", "vqa", role="teacher", report=REPORT)
        .render()
    )
    assert "teacher (this model)" in text
    assert "unreduced" in text
    assert "```json" not in text


def test_a_schedule_of_method_none_is_of_an_unreduced_model(tmp_path):
    config = {"model_type": "pumer_vilt", "architectures": ["PuMerViltForQuestionAnswering"]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "reduction": {"method": "none"}}))
    found = PuMerCard.from_checkpoint(tmp_path)
    assert found.role == "teacher"
    assert "unreduced" in found.render()
    text = card(reduction={"method": "none"}).render()
    assert text == card(reduction=None).render()
    assert "cuts its tokens" not in text


@pytest.mark.parametrize("facts", [{"backbone": "bert"}, {"task": "captions"}, {"role": "judge"}])
def test_wrong_values_name_the_field(facts):
    (name,) = facts
    with pytest.raises(ValueError, match=f"{name}='{facts[name]}'"):
        card(**facts)


def test_the_facts_make_the_same_card_again(tmp_path):
    before = trained()
    before.save(tmp_path)
    assert PuMerCard.load(tmp_path).render() == (tmp_path / "README.md").read_text() == before.render()
    Image.new("RGB", (4, 4)).save(tmp_path / "reduction.png")
    assert main(["card", str(tmp_path)]) == 0
    assert "](reduction.png)" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("task", [task for task in TASKS if task])
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_example_of_a_card_runs(family, task, tmp_path, monkeypatch, capsys):
    class_name, config = TASKS[task]
    tiny = tiny_models.FAMILIES[family]
    texts = ["what is in the picture?", "both pictures show a dog", "a dog is running", "two people at a table"]
    if family == "vilt":
        from transformers import ViltImageProcessorPil, ViltProcessor

        processor = ViltProcessor(
            ViltImageProcessorPil(size={"shortest_edge": 16}, size_divisor=4), build_bert_tokenizer(texts, 12)
        )
        config = {**config, "vocab_size": len(processor.tokenizer)}
    else:
        processor = PuMerMeterProcessor.from_tokenizer(build_roberta_tokenizer(texts, 12), 16)
        tokenizer = processor.tokenizer
        vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        small = tiny.config(**config).text_config.to_dict() | vocabulary | {"max_position_embeddings": 14}
        config = {**config, "text_config": small}
    torch.manual_seed(0)
    reduction = tiny_models.schedule("pumer", "small")
    model = getattr(tiny, class_name)(tiny.config(reduction=reduction, **config))
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("user/mine")
    processor.save_pretrained("user/mine")
    assert main(["card", "user/mine"]) == 0
    for name in ("picture.png", "left.png", "right.png"):
        Image.new("RGB", (24, 16), (200, 30, 10)).save(name)
    text = (tmp_path / "user/mine/README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert 'user/mine"' in example
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] != "Written to user/mine/README.md"  # it prints an answer


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results.json is missing"),
        ("{", "not valid JSON"),
        (json.dumps(VALUES), "facts of one model"),
        ('{"name": "x"}', "name or backbone is missing"),
    ],
)
def test_wrong_facts(content, message, tmp_path, capsys):
    if content:
        (tmp_path / "results.json").write_text(content)
    assert main(["card", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists()


def test_metrics_have_their_units_and_say_where_lower_is_better():
    metrics = {"word_errors": Metric(0.1234, "", higher_is_better=False), "speech": Metric(1234.5, "words/min")}
    others = {"word_errors": Metric(0.5, "", higher_is_better=False), "speech": Metric(900.0, "words/min")}
    report = Report({"teacher": Evaluation(others), "student": Evaluation(metrics)})
    shown = card(report=report, dataset={"name": "mine"})
    text = shown.render()
    assert "| word errors (lower is better) | 0.5 | 0.1234 |" in text
    assert "| speech | 900 words/min | 1,234 words/min |" in text
    assert [result.metric_value for result in shown.metadata().eval_results] == [0.1234, 1234.0]


def test_a_card_with_other_units_is_the_same_after_saving(tmp_path):
    report = Report({"student": Evaluation({"loss": Metric(0.25, "", higher_is_better=False)})})
    card(report=report).save(tmp_path)
    assert PuMerCard.load(tmp_path).report == report


@pytest.mark.parametrize(("unit", "shown"), [({"unit": "%"}, "80.12 %"), ({}, "80.12")])
def test_the_facts_of_an_old_card_say_one_unit_for_all_metrics(unit, shown, tmp_path):
    facts = {"name": "mine", "backbone": "vilt", "task": "vqa", **unit, "report": VALUES}
    (tmp_path / "results.json").write_text(json.dumps(facts))
    assert f"| accuracy | {'81.00 %' if unit else '81'} | {shown} |" in PuMerCard.load(tmp_path).render()


def test_a_report_that_is_no_report_is_named():
    with pytest.raises(ValueError, match=r"report.*Report\.from_dict"):
        card(report=VALUES)


@pytest.mark.parametrize("report", [{"student": {"questions": 3}}, {"throughput": 3}, "no object"])
def test_a_broken_report_names_its_file(report, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"name": "mine", "backbone": "vilt", "report": report}))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: its `report`"):
        PuMerCard.load(tmp_path)


def test_the_facts_about_cluttered_scenes_say_how_cluttered_they_are():
    plain = dataset_facts(VqaDataArguments())
    assert not {"setting", "dense_part", "num_distractors"} & set(plain)
    cluttered = dataset_facts(VqaDataArguments(setting="cluttered", grid_size=8, num_distractors=3))
    assert cluttered == {**plain, "grid": 8, "setting": "cluttered", "dense_part": 0.5, "num_distractors": 3}


def test_a_method_before_the_first_layer_is_said_as_it_works_there():
    reduction = {"method": "pumer", "site": "inputs", "keep_ratio": 0.3}
    card = PuMerCard(name="x", backbone="vilt", task="vqa", reduction=reduction).render()
    assert "merge patches that are alike" in card
    assert "the text does not attend to" not in card
