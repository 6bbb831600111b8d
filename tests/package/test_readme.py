"""The README's blocks run, its links lead somewhere, and its tables are what the results say."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tiny import vilt_fields
from tiny_tasks import save_tiny
from transformers import ViltConfig, ViltForQuestionAnswering

from laboratory.command import build_parser as study_parser
from laboratory.render import recipes_table, render
from pumer_hf import preset
from pumer_hf.cli import build_parser, main
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.models.families import DECODERS
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.evaluation import build_parser as evaluation_parser
from pumer_hf.recipes.finetuning import training_recipe
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.results import Cost, Evaluation, MetricType, Report
from pumer_hf.tuning.subjects import Subject

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """The working directory has what the README takes for granted: the demo's checkpoints, small and untrained, and a
    stock ViLT where the Hub's is.
    """
    monkeypatch.chdir(tmp_path)
    stock = ViltForQuestionAnswering(ViltConfig(**vilt_fields(num_hidden_layers=12, vocab_size=30)))
    stock.save_pretrained("dandelin/vilt-b32-finetuned-vqa")
    if DECODERS:  # else the module needs what transformers lacks
        from tiny_llava import save_tiny_llava

        save_tiny_llava("llava-hf/llava-1.5-7b-hf")
    args = ModelArguments(config=vilt_fields(num_hidden_layers=4, max_position_embeddings=12))
    data = VQA.load(VqaDataArguments(train_scenes=200, eval_scenes=4, unknown_answers="ignore"), None)
    for name, reduction in {"teacher": None, "student": preset("vilt", "vqa") | {"layers": [1, 2]}}.items():
        model, processor = build_teacher(args, data.labels, data.train["question"], 12)
        model.set_reduction(reduction)
        model.save_pretrained(f"outputs/digit-scenes/{name}")
        processor.save_pretrained(f"outputs/digit-scenes/{name}")


def test_python_blocks_run(newcomer, capsys):
    found = blocks("python")
    assert len(found) >= 6
    names = {}
    for block in found:
        if DECODERS or "pumer_hf.reduced" not in block:
            exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "text and" in printed
    assert Path("scene.png").is_file()
    assert names["trainer"].state.global_step == 2
    assert names["student"].config.reduction["method"] == "pumer"
    assert Path("outputs/my-merged-student/model.safetensors").is_file()


def test_commands_are_understood(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    pretrained = save_tiny(tmp_path / "model", "vilt")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 7
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "pumer-hf":
            build_parser().parse_args(words[1:])
        elif words[0] == "pip":
            extra = re.search(r"\[(\w+)\]", words[-1])[1]
            # an sdist's copy of the file, which setuptools writes, has blanks at the ends of lines
            assert re.search(rf"^{extra} = ?$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)
            assert (ROOT / words[words.index("-c") + 1]).is_file()
        elif "recipes/evaluate.py" in words:
            args = evaluation_parser("").parse_args(words[words.index("recipes/evaluate.py") + 1 :])
            assert args.model == "outputs/digit-scenes/student"
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file()
            if words[1] == "benchmarks/study.py":
                assert study_parser("").parse_args(words[2:]).jobs == 2
        else:
            assert words[:2] == ["accelerate", "launch"]
            assert all((ROOT / word).is_file() for word in words if word.startswith("recipes/"))
            flags = words[words.index("recipes/train_vqa.py") + 1 :]
            flags = [pretrained if flag == "dandelin/vilt-b32-mlm" else flag for flag in flags]
            recipe = training_recipe(VQA, flags)
            assert recipe.data.train_file
            assert recipe.model.config or recipe.model.checkpoint


def test_commands_about_the_demo_run(newcomer, capsys, monkeypatch):
    measured = lambda wanted: [1 + 0.05 * (index + 1) for index in wanted]  # noqa: E731, tiny models are not faster
    monkeypatch.setattr(Subject, "stopwatch", lambda self, search, on_round=None: measured)
    exec(blocks("python")[1], {})  # makes the picture
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("pumer-hf ")]
    # Checkpoints; data that one must download; minutes; a browser.
    needs_more = (
        "pumer-hf convert",
        "pumer-hf measure my-model",
        "pumer-hf bench --",  # full-size models
        "pumer-hf demo outputs/digit-scenes/student --teacher",
    )
    run = [command for command in commands if not command.startswith(needs_more)]
    pushes = [command for command in run if " push " in command and "--dry-run" not in command]
    assert len(run) >= 6
    assert len(pushes) == 1  # tests/hub pushes for real
    quick = {
        "bench": ["--seconds", "0.1", "--batch-size", "8"],
        "export": ["--seconds", "0.1"],
        "measure": ["--scenes", "8"],
    }
    for command in run:
        if command not in pushes:
            words = shlex.split(command, comments=True)[1:]
            assert main(words + quick.get(words[0], [])) == 0, capsys.readouterr().err
    assert Path("explained.png").is_file()
    assert Path("outputs/digit-scenes/student/README.md").is_file()
    assert Path("my-space/app.py").is_file()
    assert Path("student.int8.onnx").is_file()
    assert "model.safetensors" in capsys.readouterr().out  # of the dry run


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 10
    headings = [line.lstrip("#").strip().lower().replace(" ", "-") for line in README.splitlines() if line[:1] == "#"]
    for link in links:
        path, _, heading = link.partition("#")
        assert (ROOT / path).exists(), link
        assert path or heading in headings, link


def test_tables_are_rendered_from_the_results():
    assert render(ROOT / "README.md") == README
    benchmarks = ROOT / "benchmarks" / "results" / "bench" / "README.md"
    assert render(benchmarks) == benchmarks.read_text(encoding="utf-8")
    assert all(f"<!-- {kind}: " in README for kind in ("results", "compared", "bench", "onnx", "measures"))


def test_a_table_row():
    speed = {"examples_per_second": 1.0, "slowest": 1.0, "fastest": 1.0}
    values = {
        "teacher": {"accuracy": 95.123},
        "student": {"accuracy": 94.5},
        "baselines": {"majority": 10.0, "question_only": 30.04},
        "throughput": {"batch_size": 8, "rounds": 5, "regime": "forward", "student": {**speed, "ratio": 1.756}},
        "gflops": {"teacher": 0.01, "student": 0.005},
        "machine": {"processor": "Some CPU", "torch_threads": 2},
    }

    def row(name, **changes):
        return recipes_table({name: Report.from_dict({**values, **changes})}).splitlines()[2]

    assert row("some_task") == (
        "| some_task | 95.12 % | 94.50 % (-0.62) | 30.0 % | 1.76x | Some CPU, 2 threads | 0.0100 -> 0.0050 |"
    )
    recalls = {"teacher": {"text_to_image_recall@1": 90.0}, "student": {"text_to_image_recall@1": 91.0}}
    assert row("retrieval", **recalls, baselines={}).startswith(
        "| retrieval (text-to-image-recall@1) | 90.00 % | 91.00 % (+1.00) |  | 1.76x |"
    )
    assert "Some GPU" in row("some_task", machine={**values["machine"], "gpu": "Some GPU"})


def test_a_row_of_a_metric_in_another_unit_where_lower_is_better():
    """Its best baseline is the lowest one."""
    errors = MetricType("errors", higher_is_better=False)
    report = Report(
        evaluations={name: Evaluation({"word_errors": errors.of(value)}) for name, value in ROLE_ERRORS.items()},
        cost=Cost(gflops={"teacher": 2.0, "student": 1.0}),
        baselines={"majority": errors.of(9.0), "question_only": errors.of(5.0)},
    )
    row = recipes_table({"speech": report}).splitlines()[2]
    assert row.startswith("| speech (word-errors; lower is better) | 1.25 errors | 1.5 errors (+0.25) | 5 errors |")


ROLE_ERRORS = {"teacher": 1.25, "student": 1.5}
