"""The README and the pages in docs/: blocks run with an installed wheel, commands and links are right."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from builds import ROOT, built, copy_of
from page_blocks import FENCE, agrees, blocks, python_blocks
from page_commands import check_command, commands
from page_folder import save_all
from website import SITE, methods, reference
from website.links import page_file

from laboratory.render import render
from pumer_hf.data.tasks import TASKS
from pumer_hf.models.families import DECODERS
from pumer_hf.recipes.parser import parse_recipe

DOCS = ROOT / "docs"
TESTS = ROOT / "tests"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FOR_DECODERS = {"README", "decoders"}
"""Pages whose blocks need a newer transformers than the encoders do."""
SOURCES = ("src", "recipes", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
GENERATED = {"cli.md", "changelog.md", *methods.pages(), *reference.pages()}
"""Pages that the site makes, so that docs/ lacks them. The other pages link to them by their addresses on the site."""
BEFORE = {
    "decoders": "from PIL import Image; image = Image.new('RGB', (48, 48), 'red')",
    "elastic": """
from pumer_hf import DistillationTrainer, DistillationTrainingArguments, PuMerViltForQuestionAnswering
student = PuMerViltForQuestionAnswering.from_pretrained("outputs/digit-scenes-elastic/student")
trainer = DistillationTrainer(student, args=DistillationTrainingArguments("out", use_cpu=True, report_to="none"))
""",
    "tuning": """
from pumer_hf.tuning.subjects import Subject
measured = lambda wanted: [1 + 0.01 * (index + 1) for index in wanted]  # tiny models are not faster
Subject.stopwatch = lambda self, search, on_round=None: measured
""",
}
"""What a page's reader has made before its first block."""
AFTER = {
    "decoders": "assert model.reduction is None; assert len(output.reduction[0].kept) == 9",
    "elastic": """
from pumer_hf import ElasticCallback
assert isinstance(trainer.callback_handler.callbacks[-1], ElasticCallback)
assert model.reduction.to_dict() == model.config.reduction
""",
    "lookahead": 'assert [part.method for part in model.reduction.parts] == ["lookahead", "pumer"]',
    "training": "from pathlib import Path; assert Path('outputs/my-merged-student/model.safetensors').is_file()",
    "tuning": "assert tuned.best.is_close",
}
"""What is true after its last block."""


def name_of(page):
    return page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).with_suffix("").as_posix()


def pages(having=""):
    """Run a test for each page with a string in it."""
    found = [page for page in PAGES if having in page.read_text(encoding="utf-8")]
    return pytest.mark.parametrize("page", found, ids=name_of)


def headings(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    lines = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def test_there_are_pages():
    assert PAGES


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A folder with an installed wheel of this repository."""
    pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel")
    clone = copy_of([name for name in SOURCES if (ROOT / name).exists()], tmp_path_factory.mktemp("clone"))
    archive, target = (
        built(clone, "build_wheel", tmp_path_factory.mktemp("wheel")),
        tmp_path_factory.mktemp("installed"),
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--target", str(target), str(archive)], check=True)
    return target


@pytest.fixture(scope="session")
def reports(wheel, tmp_path_factory):
    """What the blocks of each page printed, all run by one process that knows the wheel and not the repository."""
    folder, base = tmp_path_factory.mktemp("granted"), tmp_path_factory.mktemp("pages")
    save_all(folder)
    jobs = []
    for page in PAGES:
        name, found = name_of(page), python_blocks(page)
        if found and (DECODERS or name not in FOR_DECODERS):
            own = shutil.copytree(folder, base / name)
            numbered = [(block.line, block.code) for block in found]
            jobs.append(
                {
                    "page": name,
                    "folder": str(own),
                    "before": BEFORE.get(name, ""),
                    "blocks": numbered,
                    "after": AFTER.get(name, ""),
                }
            )
    (base / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(TESTS / "page_runner.py"), str(base / "jobs.json"), str(base / "reports.json")]
    process = subprocess.run(
        command, cwd=base, env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    ran = json.loads((base / "reports.json").read_text())
    assert ran["package"].startswith(str(wheel))
    return ran["pages"]


@pages("```python\n")
def test_blocks_run_and_print_what_the_page_shows(page, reports):
    if not DECODERS and name_of(page) in FOR_DECODERS:
        pytest.skip("needs transformers 5.18")
    before, *ran = reports[name_of(page)]
    errors = [report["error"] for report in (before, *ran) if report["error"]]
    assert not errors, errors[0]
    for block, report in zip(python_blocks(page), ran, strict=False):
        if block.shown is not None:
            where = f"{page}:{block.line} printed\n{report['printed']}"
            assert agrees(report["printed"], block.shown), where
    assert len(ran) == len(python_blocks(page)) + 1  # and what is true after them


@pages("```sh\n")
def test_commands_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in blocks(page, "sh"):
        for words in commands(block):
            check_command(words)


@pages("```yaml\ntask:")
def test_recipes_can_be_read(page, tmp_path):
    for block in blocks(page, "yaml"):
        if block.startswith("task:"):
            file = tmp_path / "my.yaml"
            file.write_text(block, encoding="utf-8")
            task = TASKS[block.splitlines()[0].removeprefix("task:").strip()]
            parse_recipe(task, file, [])


@pages("](")
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        if path.startswith(SITE):
            file = page_file(path.removeprefix(SITE))
            assert file in GENERATED or (DOCS / file).is_file(), link
        elif not path.startswith(("http", "mailto:")):
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or target.suffix != ".md" or heading in headings(target), link


@pages("<!-- /")
def test_tables_are_rendered_from_the_results(page):
    assert render(page) == page.read_text(encoding="utf-8")


@pytest.mark.skipif(not DECODERS, reason="needs transformers 5.18")
def test_the_page_lists_every_family():
    text = (DOCS / "decoders.md").read_text(encoding="utf-8")
    for row in DECODERS.values():
        equals = "the shortened prompt" if row.shortened_prompt else "the masked prompt"
        inside = "no" if row.no_layers else "yes"
        assert f"| {row.title} | `{row.model_class.__name__}` | {equals} | {inside} |" in text


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("a 1.5\n", "a 1.5", True),
        ("a 1.5\n", "a 1.6", False),
        ("12.5 ms, 1.73x\n", "9 ms, 2.1x", True),
        ("12 tokens\n", "13 tokens", False),
        ("a\nb\nc\n", "a\n...\nc", True),
        ("a\nb\n", "a", False),
        ("a b c\nd\n", "a ...\nd", True),
        ("a b c\nd\n", "a ...", False),
    ],
)
def test_only_measured_numbers_may_differ(printed, shown, same):
    assert agrees(printed, shown) == same


def test_the_output_that_a_page_shows(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("""
```python
x = 1
```

Words.

```text
no output
```

```python
print(x)
# 1
```

```python
print(x + 1)
```

```text
2
```
""")
    assert [block.shown for block in python_blocks(page)] == [None, "1", "2\n"]
