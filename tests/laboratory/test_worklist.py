import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_tasks import CONFIGS

from laboratory import cells as cells_module
from laboratory import methods, store
from laboratory import worklist as run_module
from laboratory.group import Study, load_group
from laboratory.methods import MAIN, NONE, RESOLUTION
from laboratory.plan import SIZES, Cell, StudySize
from laboratory.worklist import run_study
from pumer_hf.models.loading import load_checkpoint_model

RECIPES = Path(__file__).parents[2] / "recipes"


def cell(method="pumer", target=None, seed=0, variant=MAIN, is_trained=True):
    return Cell("digit_scenes", "vilt", method, target, seed, variant, is_trained)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Folder of the models, so that the teacher is trained once."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def study(work, tmp_path):
    return Study("tiny", tmp_path / "results", work, RECIPES)


@pytest.fixture
def any_speed_will_do(monkeypatch):
    """Tiny models miss a target now and then: what they save is less than the noise."""
    monkeypatch.setattr(cells_module, "TOLERANCE", 1)


def result_of(study, of):
    return json.loads((study.output / f"{of.key}.json").read_text())


def changed_at(study):
    return {path.name: path.stat().st_mtime_ns for path in study.output.iterdir()}


@pytest.mark.parametrize("method", [NONE, "pumer", "tip", "lookahead_pumer", "resolution_pumer"])
def test_a_student_of_each_method(study, any_speed_will_do, method):
    own = cell(method, target=1.2 if method.startswith(RESOLUTION) else None)
    assert run_study(study, [own]) == 0
    result = result_of(study, own)
    assert result["status"] == store.DONE, result
    assert 0 <= result["value"] <= 100
    assert result["report"]["questions"] == 16
    assert result["speed"] == result["throughput"]["student"]["ratio"] > 0
    assert result["versions"]["torch"] == version("torch")
    assert result["training"]["max_steps"] == 2
    assert result["tokens_per_layer"]["teacher"] == [[12, 145]] * 6
    reduced = result["tokens_per_layer"]["student"][-1][1]
    assert (reduced < 145) == (method != NONE)
    assert (result["image_size"] is None) == (not method.startswith(RESOLUTION))
    folder = study.work / "digit_scenes-vilt" / "seed0" / own.key
    student = load_checkpoint_model(str(folder))
    assert student.config.reduction == result["reduction"]
    teacher = load_file(study.work / "digit_scenes-vilt" / "seed0" / "teacher" / "model.safetensors")
    trained = load_file(folder / "model.safetensors")
    assert any(not torch.equal(value, trained[name]) for name, value in teacher.items())


@pytest.mark.parametrize(
    ("data", "backbone", "method"),
    [
        ("digit_scenes", "meter", "pumer"),
        pytest.param("digit_scenes_nlvr2", "vilt", RESOLUTION, marks=pytest.mark.slow),
        pytest.param("digit_scenes_snli_ve", "vilt", "pumer", marks=pytest.mark.slow),
        pytest.param("digit_scenes_retrieval", "vilt", "pumer", marks=pytest.mark.slow),
    ],
)
def test_other_data_and_backbones(study, any_speed_will_do, monkeypatch, data, backbone, method):
    flags = {"train_scenes": 8, "eval_scenes": 4, "teacher_training": {"max_steps": 1}, "use_cpu": True}
    flags |= {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 4}
    flags |= {"config": {**CONFIGS[backbone], "num_hidden_layers": 6}}
    if data == "digit_scenes":
        flags["unknown_answers"] = "ignore"
    else:
        flags["pretraining"] = {"max_steps": 1}
    monkeypatch.setitem(SIZES, "other", StudySize((), flags, {"max_steps": 1}, benchmark_seconds=0.05))
    study = replace(study, size_name="other")
    own = Cell(data, backbone, method, 1.2 if method == RESOLUTION else None)
    assert run_study(study, [own]) == 0
    result = result_of(study, own)
    assert result["status"] == store.DONE, result
    teacher = store.read(study.output, store.teacher_name(own.group, 0))
    metric = "text_to_image_recall@1" if data == "digit_scenes_retrieval" else "accuracy"
    assert result["metric"] == teacher["metric"] == metric
    assert result["gflops"]["ratio"] > 1


def test_the_teacher_is_evaluated_once_and_known_again(study, work):
    run_study(study, [cell(NONE)])
    name = store.teacher_name("digit_scenes-vilt", 0)
    teacher = store.read(study.output, name)
    assert teacher["metric"] == "accuracy"
    assert teacher["gflops"] > 0
    store.write(study.output, name, {**teacher, "weights": "of another"})
    with pytest.raises(ValueError, match="another teacher"):
        run_study(study, [cell("pumer")])


def test_the_second_run_does_nothing(study):
    cells = [cell(NONE), cell("pumer")]
    assert run_study(study, cells) == 0
    before = changed_at(study)
    assert run_study(study, cells) == 0
    assert changed_at(study) == before


def test_a_killed_run_continues(study, monkeypatch):
    cells = [cell("pumer", seed=seed) for seed in (0, 1)]
    real = run_module.run_cell

    def killed(shared, of, schedule):
        if of.seed == 1:
            raise KeyboardInterrupt
        return real(shared, of, schedule)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "run_cell", killed)
        run_study(study, cells)
    assert [store.state(study.output, of) for of in cells] == [store.DONE, store.MISSING]
    before = changed_at(study)
    assert run_study(study, cells) == 0
    assert {name: time for name, time in changed_at(study).items() if name in before} == before
    assert result_of(study, cells[0])["throughput"] == result_of(study, cells[1])["throughput"]


def test_a_broken_file_is_made_anew(study):
    own = cell("pumer", is_trained=False)
    study.output.mkdir()
    for name in (own.key, own.schedule_key):
        (study.output / f"{name}.json").write_text('{"status": "done", "val')
    assert store.state(study.output, own) == store.MISSING
    assert run_study(study, [own]) == 0
    assert result_of(study, own)["status"] == store.DONE
    assert "training" not in result_of(study, own)


def test_a_failure_is_recorded_and_the_others_go_on(study, monkeypatch):
    broken = methods.Method({"vilt": {**methods.METHODS["pumer"].schedules["vilt"], "layers": [0, 99]}})
    monkeypatch.setitem(methods.METHODS, "pumer", broken)
    cells = [cell("pumer"), cell(NONE)]
    assert run_study(study, cells) == 0
    assert [store.state(study.output, of) for of in cells] == [store.FAILED, store.DONE]
    assert result_of(study, cells[0])["error"].startswith("ValueError: reduction.layers=[0, 99] names layer 99")


def test_a_group_without_data_fails_as_a_whole(study, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # there is no data/easy-vqa
    cells = [Cell("easy_vqa", "vilt", NONE, None), cell(NONE)]
    assert run_study(study, cells) == 0
    assert [store.state(study.output, of) for of in cells] == [store.FAILED, store.DONE]
    assert "data/easy-vqa/train.jsonl" in result_of(study, cells[0])["error"]


def test_out_of_reach_is_said_and_not_trained(study, monkeypatch):
    own = [cell("pumer", target=500.0), cell("pumer", target=500.0, variant="first_head")]
    assert run_study(study, own) == 0
    for result in (result_of(study, of) for of in own):
        assert result["status"] == store.OUT_OF_REACH
        assert 0 < result["speed"] < 500
        assert "value" not in result


def test_no_time_is_left_for_what_has_not_begun(study):
    cells = [cell(NONE), cell("pumer")]
    assert run_study(study, cells, minutes=1e-9) == 2
    assert not study.output.exists()


def student_folder(study, seed):
    return study.work / "digit_scenes-vilt" / f"seed{seed}" / cell("pumer", seed=seed).key


@pytest.mark.slow
def test_the_same_seed_gives_the_same_student_and_another_seed_another(study, tmp_path):
    values = {}
    for name, seed in {"first": 0, "again": 0, "other": 1}.items():
        own = Study("tiny", tmp_path / name, study.work, RECIPES)
        run_study(own, [cell("pumer", seed=seed)])
        values[name] = load_file(student_folder(study, seed) / "model.safetensors")
    same = [torch.equal(value, values["again"][name]) for name, value in values["first"].items()]
    assert all(same)
    assert not all(torch.equal(value, values["other"][name]) for name, value in values["first"].items())


def test_smaller_images_and_the_logits_of_whole_ones(study):
    run_study(study, [cell(NONE)])  # trains the teacher if no test has
    shared = load_group(study, "digit_scenes", "vilt", 0)
    row = [shared.train[0]]
    small, whole = (shared.collator(RESOLUTION, size, training=True)(row) for size in (48, None))
    assert small["pixel_values"].shape == (1, 3, 48, 48)
    assert whole["pixel_values"].shape == (1, 3, 96, 96)
    assert shared.processor.image_processor.size["shortest_edge"] == 96
    whole.pop("labels")
    expected = whole.pop("teacher_logits")
    assert torch.equal(expected, small["teacher_logits"])
    with torch.no_grad():
        torch.testing.assert_close(shared.teacher(**whole).logits, expected, rtol=1e-4, atol=1e-5)
