"""The pages in docs/: their blocks run, their links lead somewhere, and their tables are what the results say."""

import re
import shlex
from pathlib import Path

import pytest
from tiny import vilt_fields

from laboratory.render import render
from pumer_hf.cli import build_parser
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.models.scorers import save_scorer
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.recipes.small_llava import new_llava
from pumer_hf.training.scorer import add_scorer

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
pages = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


LAST = {
    "lookahead": lambda names: [part.method for part in names["model"].reduction.parts] == ["lookahead", "pumer"],
    "decoders": lambda names: len(names["traces"][0][0].kept) == 9,
}
"""What holds after the last block of a page."""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The working directory has the demo's teacher and a LLaVA, small and untrained, and a scorer for the teacher."""
    monkeypatch.chdir(tmp_path)
    args = ModelArguments(config=vilt_fields(num_hidden_layers=4, max_position_embeddings=12))
    data = VQA.load(VqaDataArguments(train_scenes=20, eval_scenes=4, unknown_answers="ignore"), None)
    model, processor = build_teacher(args, data.labels, data.train["question"], 12)
    model.save_pretrained("outputs/digit-scenes/teacher")
    processor.save_pretrained("outputs/digit-scenes/teacher")
    model = type(model).from_pretrained("outputs/digit-scenes/teacher")
    add_scorer(model, {"method": "lookahead", "site": "inputs", "keep_ratio": 0.2, "target_layer": 1})
    save_scorer(model, "outputs/my-scorer", trained_on="nothing", steps=0)
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for part in new_llava({**tiny, "image_size": 48, "patch_size": 8}, tiny, data.train["question"], 0, 0.5):
        part.save_pretrained("outputs/llava-digit-scenes/teacher")


def test_there_are_pages():
    assert PAGES


@pages
def test_python_blocks_run(page, reader):
    found, names = blocks(page, "python"), {}
    assert found
    for block in found:
        exec(compile(block, page.name, "exec"), names)
    assert LAST[page.stem](names)


@pages
def test_commands_are_understood(page):
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
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
