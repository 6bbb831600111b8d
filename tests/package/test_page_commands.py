"""The commands that the pages show are run, on the models that the pages take for granted."""

import shlex
from pathlib import Path

from builds import ROOT
from page_blocks import blocks
from page_commands import commands
from page_folder import save_all

from pumer_hf.cli import main
from pumer_hf.models.families import DECODERS
from pumer_hf.tuning.subjects import Subject

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = (
    *("train", "train-scorer", "convert"),  # tests/recipes and tests/convert run them
    *("bench --setting", "bench outputs/digit-scenes/student --batch-size auto"),  # full-size models, and a GPU
    *("evaluate vqa --model my-model", "measure my-model"),  # the reader's own model and data
    *("generate llava-hf", "tune llava-hf", "tune outputs/llava"),  # photographs, and minutes
    *("evaluate vqa recipes", "evaluate vqa --model outputs/llava"),  # what other recipes have trained
    *("bench outputs/pumer-llava", "card outputs/pumer-llava"),  # what the code of a page has saved
    *("demo outputs/digit-scenes/student --teacher", "demo outputs/digit-scenes/student --host"),  # a browser
    "demo outputs/llava",
)
"""The beginnings of commands that need more than is here."""
QUICK = {
    "bench": ["--seconds", "0.1", "--batch-size", "8"],
    "export": ["--seconds", "0.1"],
    "measure": ["--scenes", "8"],
    "evaluate": ["--train_scenes", "8", "--eval_scenes", "4", "--unknown_answers", "ignore", "--use_cpu", "true"],
}
"""What makes commands quick."""


def needs_more(words):
    pushes = words[1] == "push" and "--dry-run" not in words  # tests/hub pushes for real
    flags = {"--compile", "--data"} & set(words)  # minutes
    decoder = "outputs/llava" in words and not DECODERS
    return bool(pushes or flags or decoder or shlex.join(words[1:]).startswith(ELSEWHERE))


def shown():
    """The commands of `pumer-hf` on all pages, each once, in the order of the pages."""
    lines = (words for page in PAGES for block in blocks(page, "sh") for words in commands(block))
    return [list(words) for words in dict.fromkeys(map(tuple, lines)) if words[0] == "pumer-hf"]


def test_most_commands_are_run():
    run = {words[1] for words in shown() if not needs_more(words)}
    assert run >= {
        "bench",
        "card",
        "demo",
        "env",
        "evaluate",
        "example",
        "explain",
        "export",
        "measure",
        "push",
        "tune",
    }


def test_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_all(tmp_path)
    measured = lambda wanted: [1 + 0.05 * (index + 1) for index in wanted]  # noqa: E731, tiny models are not faster
    monkeypatch.setattr(Subject, "stopwatch", lambda self, search, on_round=None: measured)
    for words in (one for one in shown() if not needs_more(one)):
        assert main(words[1:] + QUICK.get(words[1], [])) == 0, f"{words}: {capsys.readouterr().err}"
    for made in ("explained.png", "my-space/app.py", "student.int8.onnx", "my-example/model", "tuned.json"):
        assert Path(made).exists(), made
    assert Path("outputs/digit-scenes/student/README.md").is_file()
    assert "model.safetensors" in capsys.readouterr().out  # of the dry run
