"""What a run that is stopped says, and which signals it hears."""

import os
import signal

import pytest
from transformers import TrainerState

from pumer_hf.recipes.interrupt import ending_in_one_line, last_line, resuming_command
from pumer_hf.recipes.stages import check_new_run, lost_steps


@pytest.fixture
def folder(tmp_path):
    """Of a stage whose last checkpoint is of step 7."""
    checkpoint = tmp_path / "student" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    TrainerState(global_step=7, max_steps=12).save_to_json(str(checkpoint / "trainer_state.json"))
    return tmp_path / "student"


# What is lost


@pytest.mark.parametrize("state", [TrainerState(), TrainerState(global_step=0, max_steps=12)], ids=["new", "begun"])
def test_a_stage_that_had_not_gone_on_yet_loses_nothing(state, folder):
    told = lost_steps(folder, state)
    assert told.startswith("student had not gone on yet")
    assert "step 7" in told
    assert told.endswith("so no step is lost")
    assert "-7" not in told


def test_a_stage_that_had_not_begun_loses_nothing(tmp_path):
    told = lost_steps(tmp_path / "teacher", TrainerState())
    assert told.startswith("teacher had not begun")
    assert told.endswith("so no step is lost")


@pytest.mark.parametrize(("step", "lost"), [(7, "no step is lost"), (8, "1 step is lost"), (11, "4 steps are lost")])
def test_a_stage_that_had_gone_on_loses_what_came_after_its_checkpoint(step, lost, folder):
    told = lost_steps(folder, TrainerState(global_step=step, max_steps=12))
    assert told == f"student was at step {step} of 12, the last checkpoint is of step 7, so {lost}"


# How to go on


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "make demo ARGS=--resume"),
        (["--output_dir", "my runs/a"], "make demo ARGS='--output_dir '\"'\"'my runs/a'\"'\"' --resume'"),
    ],
)
def test_what_make_started_goes_on_with_make(words, expected, folder, make_args, monkeypatch):
    monkeypatch.setenv("PUMER_HF_STARTED_BY", "make demo")
    monkeypatch.setattr("sys.argv", ["train_vqa.py", *words])
    assert resuming_command() == expected
    assert last_line(KeyboardInterrupt(), "Ctrl-C").endswith(f"To go on, give `{expected}`.")
    args = make_args(output_dir=str(folder))
    args.resume = False
    with pytest.raises(FileExistsError) as error:
        check_new_run(args)
    assert f"continue it with `{expected}`" in str(error.value)


def test_what_make_has_continued_goes_on_with_the_same_command(monkeypatch):
    monkeypatch.setenv("PUMER_HF_STARTED_BY", "make demo")
    monkeypatch.setattr("sys.argv", ["train_vqa.py", "--resume"])
    assert last_line(KeyboardInterrupt(), "Ctrl-C").endswith("To go on, give the same command.")


def test_a_script_goes_on_with_the_flag(monkeypatch):
    monkeypatch.delenv("PUMER_HF_STARTED_BY", raising=False)
    monkeypatch.setattr("sys.argv", ["train_vqa.py"])
    assert resuming_command() is None
    assert last_line(KeyboardInterrupt(), "Ctrl-C").endswith("To go on, give the same command with --resume.")


# Which signals are heard


@pytest.fixture
def handlers():
    """Puts the handlers of a test back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_that_is_ignored_stays_ignored(handlers):
    """A shell script has the runs that it starts in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ending_in_one_line():
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_an_ignored_signal_stays_ignored_after_another_one(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(SystemExit) as end, ending_in_one_line():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert end.value.code == 128 + signal.SIGTERM


def test_a_handler_from_outside_of_python_is_left_alone(monkeypatch):
    """Python knows such a handler as None, and cannot put it back."""
    set_for = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_for.append(number))
    with ending_in_one_line():
        pass
    assert set_for == []
