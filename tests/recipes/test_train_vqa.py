import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import run_here
from PIL import Image
from tiny import assert_same_weights, log_of, vilt_fields, words_of
from transformers import TrainerCallback

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "train_vqa.py"
SCRATCH = ROOT / "recipes" / "vilt" / "own_data" / "scratch.yaml"
TINY = vilt_fields(max_position_embeddings=12)
COMMON = {
    "config": json.dumps(TINY),
    "layers": ["0", "1"],
    "prune_ratio": "0.2",
    "image_merge_ratio": "0.3",
    "text_merge_ratio": "0.2",
    "teacher_training": json.dumps({"max_steps": 2}),
    "benchmark_seconds": "0.01",
    "per_device_train_batch_size": "8",
    "per_device_eval_batch_size": "8",
    "logging_steps": "1",
    "use_cpu": "true",
    "report_to": "none",
}
SCENES = {"train_scenes": "8", "eval_scenes": "4", "unknown_answers": "ignore"}


def command(output_dir, **flags):
    return [sys.executable, str(SCRIPT), *words_of({**COMMON, "output_dir": str(output_dir), **flags})]


def run(words, cwd):
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=200, check=False)


def run_recipe(output_dir, **flags):
    process = run_here(command(output_dir, **flags), output_dir.parent)
    assert process.returncode == 0, process.stderr
    return process


def results_in(output_dir):
    return json.loads((output_dir / "results.json").read_text())


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A whole run on digit scenes: what it printed, and its folder. 24 steps of the student, a checkpoint every 8."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return run_recipe(folder, **SCENES, max_steps="24", save_steps="8"), folder


def test_a_run_on_digit_scenes_reports_accuracy_beside_speed(digits):
    process, folder = digits
    results = results_in(folder)
    for name in ("teacher", "student"):
        assert 0 <= results[name]["accuracy"] <= 100
        assert results[name]["questions"] == 16
        assert results[name]["accuracy_by_kind"]
    assert results["baselines"].keys() == {"majority", "question_only"}
    assert results["throughput"]["ratio"] > 0
    assert results["throughput"]["student"]["examples_per_second"] > 0
    assert results["gflops"]["ratio"] == pytest.approx(results["gflops"]["teacher"] / results["gflops"]["student"])
    assert results["gflops"]["ratio"] > 1
    assert results["tokens_per_layer"]["teacher"] == [[12, 37]] * 3
    assert results["tokens_per_layer"]["student"] == [[10, 19], [8, 9], [8, 9]]
    assert results["versions"].keys() >= {"python", "torch", "transformers", "pumer-hf"}
    assert results["command"].startswith("train_vqa.py --config")
    assert re.search(r"\d\.\d\dx (faster|slower)", process.stdout)
    assert str(folder / "results.json") in process.stdout


def test_a_run_trains_the_teacher_as_its_own_block_says_and_distils_the_student(digits):
    _, folder = digits
    teacher, student = log_of(folder / "teacher"), log_of(folder / "student")
    assert max(entry["step"] for entry in teacher) == 2
    assert max(entry["step"] for entry in student) == 24
    assert not any("distillation_loss" in entry for entry in teacher)
    losses = [entry for entry in student if "loss" in entry]
    assert len(losses) == 24
    for entry in losses:
        assert entry["loss"] == pytest.approx(entry["task_loss"] + entry["distillation_loss"], rel=1e-4)


def test_teacher_and_student_load_by_auto_classes_in_a_new_process(digits):
    _, folder = digits
    program = """
import sys

import pumer_hf
from transformers import AutoModel, AutoModelForVisualQuestionAnswering, AutoProcessor

for folder in sys.argv[1:]:
    bare, model = AutoModel.from_pretrained(folder), AutoModelForVisualQuestionAnswering.from_pretrained(folder)
    print(type(bare).__name__, type(model).__name__, type(AutoProcessor.from_pretrained(folder)).__name__)
    print(model.config.reduction and model.config.reduction["layers"])
"""
    process = run([sys.executable, "-c", program, str(folder / "teacher"), str(folder / "student")], folder)
    assert process.returncode == 0, process.stderr
    names = "PuMerViltModel PuMerViltForQuestionAnswering ViltProcessor"
    assert process.stdout.splitlines() == [names, "None", names, "[0, 1]"]


def test_a_second_run_into_the_same_folder_is_refused_in_one_line_that_names_it(digits):
    _, folder = digits
    before = (folder / "results.json").read_bytes()
    process = run_here(command(folder, **SCENES), folder)
    assert process.returncode != 0
    assert str(folder) in process.stderr.splitlines()[-1]
    assert "--resume" in process.stderr
    assert "Traceback" not in process.stderr
    assert (folder / "results.json").read_bytes() == before


KILLED = """
import os, runpy, signal, sys
from transformers.trainer_callback import CallbackHandler

saved = CallbackHandler.on_save

def on_save(self, args, state, control):
    if args.output_dir.endswith("student"):
        os.kill(os.getpid(), signal.SIGKILL)
    return saved(self, args, state, control)

CallbackHandler.on_save = on_save
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script, and kills it when the first checkpoint of the student is whole."""


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(digits, tmp_path):
    _, whole = digits
    folder = tmp_path / "run"
    flags = {**SCENES, "max_steps": "24", "save_steps": "8", "save_total_limit": "3"}
    checkpoint = folder / "student" / "checkpoint-8"
    state = checkpoint / "trainer_state.json"  # what a checkpoint is written to last
    python, *words = command(folder, **flags)
    process = run([python, "-c", KILLED, *words], tmp_path)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert state.read_text().endswith("}\n")
    assert not (folder / "student" / "checkpoint-16").exists()
    assert not (folder / "results.json").exists()
    times = [path.stat().st_mtime_ns for path in (state, folder / "teacher" / "model.safetensors")]
    resumed = run_recipe(folder, **flags, resume="true")
    assert f"is complete in {folder / 'teacher'}, so it is skipped" in resumed.stdout
    assert "24 steps (6 epochs) of 8 rows, learning rate 0.0003; goes on after step 8" in resumed.stdout
    # neither was made again
    assert [path.stat().st_mtime_ns for path in (state, folder / "teacher" / "model.safetensors")] == times
    assert_same_weights(folder / "teacher", whole / "teacher")
    assert_same_weights(folder / "student", whole / "student")
    assert [entry["step"] for entry in log_of(folder / "student") if "loss" in entry] == [*range(1, 25)]
    for name in ("teacher", "student"):
        assert results_in(folder)[name] == results_in(whole)[name]


@pytest.fixture
def ctrl_c_is_heard():
    """It is ignored where a shell script runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def stop_at_step_5(monkeypatch, ctrl_c_is_heard):
    """Sends a signal to this process after step 5 of the student; gives how to choose which."""

    def choose(number):
        class Stop(TrainerCallback):
            def __init__(self, lengths):
                """As of the callback in whose place it is."""

            def on_step_end(self, args, state, control, **kwargs):
                if args.output_dir.endswith("student") and state.global_step == 5:
                    os.kill(os.getpid(), number)

        monkeypatch.setattr("pumer_hf.recipes.stages.TimeLeftCallback", Stop)

    return choose


@pytest.mark.parametrize(
    ("resumed", "number", "name"), [(False, signal.SIGINT, "Ctrl-C"), (True, signal.SIGTERM, "SIGTERM")]
)
def test_a_stopped_run_ends_in_one_line_that_says_how_to_go_on_and_what_is_lost(
    resumed, number, name, stop_at_step_5, tmp_path
):
    stop_at_step_5(number)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    flags = {**SCENES, "max_steps": "8", "save_steps": "3", **({"resume": "true"} if resumed else {})}
    process = run_here(command(tmp_path / "run", **flags), tmp_path)
    assert process.returncode == 128 + number
    assert "Traceback" not in process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.startswith(f"Stopped by {name}: student was at step 5 of 8, ")
    assert "checkpoint is of step 3, so 2 steps are lost" in last
    assert last.endswith("the same command." if resumed else "the same command with --resume.")
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_that_is_stopped_before_it_trains_loses_no_step(tmp_path, monkeypatch, ctrl_c_is_heard):
    monkeypatch.setattr("pumer_hf.recipes.runner.check_sources", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    process = run_here(command(tmp_path / "run", **SCENES), tmp_path)
    assert process.returncode == 130
    assert "no step is lost" in process.stderr.splitlines()[-1]


LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/ddp_4xa100.yaml")]


@pytest.mark.slow
def test_two_processes_that_are_stopped_tell_it_once(tmp_path, ctrl_c_is_heard):
    words = command(tmp_path / "run", **SCENES, teacher_training='{"max_steps": 100000}', save_minutes="0.02")
    words[1:1] = [*LAUNCH, "--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        while not list((tmp_path / "run" / "teacher").glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(timeout=60)
    told = (tmp_path / "log.txt").read_text()
    assert told.count("Stopped by Ctrl-C: teacher was at step ") == 1
    # what there is beside it is of the launcher, which knows no quiet end
    assert told.count("Traceback") == told.count("SignalException: Process ") == 1


@pytest.fixture
def own_data(tmp_path):
    """A folder of pictures in one colour each, and questions about them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    for name, colour in colours.items():
        Image.new("RGB", (60, 40), colour).save(pictures / f"{name}.png")
    rows = [{"image": f"{name}.png", "question": "what colour is this?", "answer": name} for name in colours]
    rows += [
        {"image": f"{name}.png", "question": "is this red?", "answers": ["yes" if name == "red" else "no"] * 3}
        for name in colours
    ]
    gone = {"image": "gone.png", "question": "what colour is this?", "answer": "red"}
    for split, part in (("train", [*rows, gone]), ("validation", rows[:2]), ("test", [gone, gone, *rows[2:5]])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path


def test_a_run_on_own_questions_and_pictures(own_data, tmp_path):
    folder = tmp_path / "run"
    files = {f"{split}_file": str(own_data / f"{split}.jsonl") for split in ("train", "validation", "test")}
    flags = {"image_dir": str(own_data / "pictures"), "missing_images": "skip", "cache_teacher_logits": "true"}
    python, script, *words = command(folder, **files, **flags, max_steps="2")
    process = run_here([python, script, str(SCRATCH), *words], tmp_path)
    assert process.returncode == 0, process.stderr
    plan = dict(line.strip().split("  ", 1) for line in process.stdout.partition("\n")[2].splitlines()[:11])
    assert process.stdout.startswith("Plan of this run:\n")
    assert "random weights" in plan["model"]
    assert plan["pictures"].strip().startswith("48 x 48 pixels")
    assert plan["texts"].strip().startswith("40 tokens")
    assert f"6 rows of {own_data / 'train.jsonl'}; 5 labels, most often " in plan["train"]
    assert "1 rows whose image is missing are left out" in plan["train"]
    assert "2 rows whose image is missing are left out" in plan["test"]
    assert plan["teacher"].strip().startswith("2 steps (2 epochs) of 8 rows")
    results = results_in(folder)
    assert results["missing_images"] == {"train": 1, "validation": 0, "test": 2}
    assert "Rows left out since an image is missing: train 1, test 2." in process.stdout
    assert results["teacher"]["questions"] == results["student"]["questions"] == 3
    assert "accuracy_by_kind" not in results["student"]
    # the test asks: what colour is this (blue); is this red (yes); is this red (no)
    assert results["baselines"] == pytest.approx({"majority": 100 / 3, "question_only": 200 / 3})
    config = json.loads((folder / "student" / "config.json").read_text())
    assert [config["id2label"][str(index)] for index in range(5)] == ["no", "yes", "blue", "green", "red"]
    assert any("distillation_loss" in entry for entry in log_of(folder / "student"))


@pytest.mark.parametrize(
    ("flags", "wrong", "right"),
    [
        (["--prune_ration", "0.2"], "--prune_ration", "--prune_ratio"),
        (["--teacher_training", '{"max_stepz": 2}'], "max_stepz", "max_steps"),
    ],
)
def test_an_unknown_flag_ends_the_run_with_the_nearest_right_one(flags, wrong, right, tmp_path):
    process = run_here([sys.executable, str(SCRIPT), *flags], tmp_path)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert f"'{wrong}'" in last
    assert last.endswith(f"did you mean {right}?")
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())
