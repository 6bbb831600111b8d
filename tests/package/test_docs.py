"""The pages in docs/: their blocks run, their links lead somewhere, and their tables are what the results say."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from tiny import vilt_fields

from laboratory.command import build_parser as study_parser
from laboratory.render import render
from laboratory.vlm_command import build_parser as vlm_parser
from pumer_hf import DistillationTrainer, DistillationTrainingArguments, ElasticCallback
from pumer_hf.cli import build_parser
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.models.families import DECODERS
from pumer_hf.models.scorers import save_scorer
from pumer_hf.recipes.build import build_teacher, load_model
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.training.scorer import add_scorer
from pumer_hf.tuning.subjects import Subject

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = {"benchmarks/vlm.py": vlm_parser, "benchmarks/study.py": study_parser}
PAGES = sorted(DOCS.glob("*.md"))
pages = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The working directory has the demo's teacher, small and untrained, and a scorer for it."""
    monkeypatch.chdir(tmp_path)
    args = ModelArguments(config=vilt_fields(num_hidden_layers=4, max_position_embeddings=12))
    data = VQA.load(VqaDataArguments(train_scenes=20, eval_scenes=4, unknown_answers="ignore"), None)
    model, processor = build_teacher(args, data.labels, data.train["question"], 12)
    model.save_pretrained("outputs/digit-scenes/teacher")
    processor.save_pretrained("outputs/digit-scenes/teacher")
    model = type(model).from_pretrained("outputs/digit-scenes/teacher")
    add_scorer(model, {"method": "lookahead", "site": "inputs", "keep_ratio": 0.2, "target_layer": 1})
    save_scorer(model, "outputs/my-scorer", trained_on="nothing", steps=0)


def test_there_are_pages():
    assert PAGES


def run_blocks(page, **names):
    found = blocks(page, "python")
    assert found
    for block in found:
        exec(compile(block, page.name, "exec"), names)
    return names


def test_blocks_about_lookahead_run(reader):
    names = run_blocks(DOCS / "lookahead.md")
    assert [part.method for part in names["model"].reduction.parts] == ["lookahead", "pumer"]


def test_blocks_about_elastic_students_run(reader):
    folder, schedule = "outputs/digit-scenes-elastic/student", {"method": "tome", "layers": [0], "merge_ratio": 0.4}
    model = load_model("outputs/digit-scenes/teacher", schedule)
    model.save_pretrained(folder)
    trainer = DistillationTrainer(model, args=DistillationTrainingArguments("out", use_cpu=True, report_to="none"))
    names = run_blocks(DOCS / "elastic.md", trainer=trainer)
    assert isinstance(trainer.callback_handler.callbacks[-1], ElasticCallback)
    assert names["model"].reduction.to_dict() == names["model"].config.reduction


def test_blocks_about_tuning_run(reader, monkeypatch, capsys):
    measured = lambda wanted: [1 + 0.01 * (index + 1) for index in wanted]  # noqa: E731, tiny models are not faster
    monkeypatch.setattr(Subject, "stopwatch", lambda self, search, on_round=None: measured)
    names = run_blocks(DOCS / "tuning.md")
    assert names["tuned"].best.is_close
    assert "'method': 'pumer'" in capsys.readouterr().out


@pytest.mark.skipif(not DECODERS, reason="needs transformers 5.18")
def test_blocks_about_decoders_run(tmp_path, monkeypatch, capsys):
    from tiny_llava import save_tiny_llava  # it needs what an older transformers lacks

    monkeypatch.chdir(tmp_path)
    save_tiny_llava("outputs/llava", num_layers=6)
    model = DECODERS["llava"].model_class.from_pretrained("outputs/llava").eval()
    add_scorer(model, {"method": "lookahead", "site": "inputs", "keep_ratio": 0.2, "target_layer": 1})
    save_scorer(model, "outputs/my-llava-scorer", trained_on="nothing", steps=0)
    names = run_blocks(DOCS / "decoders.md", image=Image.new("RGB", (48, 48), "red"))
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]  # the trainer's logs
    printed_inside = blocks(DOCS / "decoders.md", "text")[0].splitlines()
    assert printed == [
        *("36 image tokens, 12 kept", *printed_inside, "[18, 9]"),
        *("4 kept by the scorer", "2 choices, one for each question"),
    ]
    assert len(names["output"].reduction[0].kept) == 9
    assert names["model"].reduction is None


@pytest.mark.skipif(not DECODERS, reason="needs transformers 5.18")
def test_the_page_lists_every_family():
    text = (DOCS / "decoders.md").read_text(encoding="utf-8")
    for row in DECODERS.values():
        equals = "the shortened prompt" if row.shortened_prompt else "the masked prompt"
        inside = "no" if row.no_layers else "yes"
        assert f"| {row.title} | `{row.model_class.__name__}` | {equals} | {inside} |" in text


@pages
def test_commands_are_understood(page):
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            script = next((name for name in SCRIPTS if name in words), None)
            if script is not None:
                assert words[0] == "python" or words[:2] == ["accelerate", "launch"]
                SCRIPTS[script]("").parse_args(words[words.index(script) + 1 :])
            else:
                assert words[0] == "pumer-hf"
                build_parser().parse_args(words[1:])


@pages
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        if not link.startswith("http"):
            assert (DOCS / link.partition("#")[0]).exists(), link


@pages
def test_tables_are_rendered_from_the_results(page):
    assert render(page) == page.read_text(encoding="utf-8")
