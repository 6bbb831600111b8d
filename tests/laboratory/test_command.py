import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import run_here

from laboratory import cells, command, store
from laboratory.command import build_parser, selected, study_command
from laboratory.plan import SIZES, work_list

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "study.py"
KEYS = ["digit_scenes-vilt-none-main-as_is-trained-seed0", "digit_scenes-vilt-pumer-main-1.3x-trained-seed0"]


@pytest.fixture
def run(tmp_path):
    """The command in this process, on one thread, with folders of its own."""

    def run(*flags):
        folders = ["--output", str(tmp_path / "o"), "--work", str(tmp_path / "w"), "--results", str(tmp_path)]
        study_command("", ROOT, ["--setting", "tiny", "--threads", "1", *folders, *flags])

    return run


def test_from_nothing_to_tables_and_plots(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cells, "TOLERANCE", 1)  # any speed will do: a tiny model's is mostly noise
    run("--list")
    assert capsys.readouterr().out.split() == ["missing", KEYS[0], "missing", KEYS[1]]
    run()
    assert "2 cells: 2 done." in capsys.readouterr().out
    run("--list")
    assert capsys.readouterr().out.split() == ["done", KEYS[0], "done", KEYS[1]]
    report = (tmp_path / "README.md").read_text()
    assert "| pumer | " in report
    assert "![Accuracy against measured speed, digit_scenes-vilt](digit_scenes-vilt.png)" in report
    (tmp_path / "digit_scenes-vilt.png").unlink()
    (tmp_path / "README.md").unlink()
    shutil.rmtree(tmp_path / "w")
    shutil.rmtree(tmp_path / "o")
    run("--render")
    assert (tmp_path / "digit_scenes-vilt.png").stat().st_size > 5_000
    assert (tmp_path / "README.md").read_text() == report


def test_failures_are_done_again_when_asked(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.SIZES["tiny"].student, "max_steps", "two")
    run("--only", "*-none-*")
    assert "1 FAILED" in capsys.readouterr().out
    monkeypatch.setitem(command.SIZES["tiny"].student, "max_steps", 2)
    run("--only", "*-none-*")
    assert "1 FAILED" in capsys.readouterr().out
    run("--only", "*-none-*", "--retry-failed")
    assert "1 cells: 1 done" in capsys.readouterr().out
    assert "not run" in (tmp_path / "README.md").read_text()  # pumer, which the plan has


def test_a_study_that_is_done_says_where_its_results_are(tmp_path):
    cells = work_list(SIZES["tiny"])
    machine = {"processor": "Some CPU", "torch_threads": 3}
    store.write(tmp_path, cells[0].schedule_key, {"machine": machine})
    store.write(tmp_path, cells[0].key, {"status": store.DONE, "machine": {**machine, "torch_threads": 1}})
    assert command.found(tmp_path, []) is None
    some = command.found(tmp_path, cells)
    assert "1 of 2 cells" in some
    assert "1 done" in some
    assert str(tmp_path) in some
    assert "Some CPU, 3 threads" in some  # where the speed was measured
    assert "nothing left" not in some
    store.write(tmp_path, cells[1].key, {"status": store.FAILED, "error": "", "machine": machine})
    assert "nothing left" in command.found(tmp_path, cells)
    assert "--retry-failed" in command.found(tmp_path, cells)
    store.write(tmp_path, cells[1].key, {"status": store.OUT_OF_REACH, "machine": machine})
    assert "--retry-failed" not in command.found(tmp_path, cells)


@pytest.mark.slow
def test_two_jobs_in_a_process_of_its_own(tmp_path):
    any_speed_will_do = "import runpy, sys; from laboratory import cells; cells.TOLERANCE = 1; del sys.argv[0]; "
    script = any_speed_will_do + "runpy.run_path(sys.argv[0], run_name='__main__')"
    words = [sys.executable, "-c", script, str(SCRIPT), "--setting", "tiny", "--jobs", "2", "--threads", "1"]
    words += ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    process = subprocess.run(words, capture_output=True, text=True, timeout=250, check=False, env=dict(os.environ))
    assert process.returncode == 0, process.stderr
    assert "2 cells: 2 done." in process.stdout
    assert process.stdout.count("train_runtime") == 1  # the teacher's: what students print goes to their logs


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "nothing"], "--only nothing: "),
        (["--jobs", "0"], "--jobs 0: .*1"),
        (["--threads", "0"], "--threads 0: .*1"),
        (["--setting", "gpu", "--teachers", "folder"], "--teachers: .*one data set"),
        (["--shard", "3/2"], "--shard 3/2: .*such as 1/4"),
        (["--render"], "no study"),
    ],
)
def test_wrong_flags_end_with_a_message(run, flags, message):
    with pytest.raises(SystemExit, match=message):
        run(*flags)


def test_a_plot_without_matplotlib_is_an_error_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"pip install .*matplotlib"):
        run()
    assert not (tmp_path / "w").exists()


def test_help_teaches(tmp_path):
    process = run_here([sys.executable, str(SCRIPT), "--help"], tmp_path)
    assert process.returncode == 0
    for flag in (
        "--size",
        "--setting",
        "--only",
        "--list",
        "--render",
        "--jobs",
        "--minutes",
        "--teachers",
        "--shard",
        "--retry-failed",
    ):
        assert flag in process.stdout
    assert "python benchmarks/study.py --jobs 2" in process.stdout


def test_only_takes_a_glob():
    cells = work_list(SIZES["cpu"])
    found = selected(cells, "digit_scenes-vilt-pumer-main-1.7x-trained-*")
    assert [cell.seed for cell in found] == [0, 1, 2]
    assert selected(cells, None) == cells


def test_minutes_are_above_zero(capsys):
    with pytest.raises(SystemExit):
        build_parser("").parse_args(["--minutes", "0"])
    assert "--minutes" in capsys.readouterr().err
