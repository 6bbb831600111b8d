"""The README is short, looks the same everywhere, and has tables that are rendered. `test_docs.py` runs its blocks."""

import re
from pathlib import Path

from laboratory.render import recipes_table, render
from pumer_hf.release import DOCS, PACKAGE, REPOSITORY
from pumer_hf.results import Cost, Evaluation, MetricType, Report

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)]+)\)", README)


def test_it_is_a_front_page():
    """Somebody reads it in minutes, and finds the first lines to run on the first screens."""
    lines = README.splitlines()
    assert len(lines) <= 165
    assert lines.index("```python") < 25
    assert f"pip install {PACKAGE}" in lines[:20]


def test_it_looks_the_same_on_pypi_and_on_the_hub():
    assert len(LINKS) > 20
    assert all(link.startswith("https://") for link in LINKS)
    assert "<img" not in README


def test_links_to_the_documentation_lead_to_a_page():
    links = [link.removeprefix(DOCS) for link in LINKS if link.startswith(DOCS)]
    assert len(links) > 8
    for link in links:
        name = link.partition("#")[0].strip("/")
        assert not name or name.startswith("methods") or (ROOT / "docs" / f"{name}.md").is_file(), link


def test_links_to_the_repository_lead_to_a_file():
    raw = REPOSITORY.replace("github.com", "raw.githubusercontent.com")
    starts = (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/", f"{raw}/main/")
    paths = [link.removeprefix(start) for link in LINKS for start in starts if link.startswith(start)]
    assert len(paths) > 8
    for path in paths:
        assert (ROOT / path).exists(), path


def test_tables_are_rendered_from_the_results():
    assert render(ROOT / "README.md") == README
    benchmarks = ROOT / "benchmarks" / "results" / "bench" / "README.md"
    assert render(benchmarks) == benchmarks.read_text(encoding="utf-8")
    assert all(f"<!-- {kind}: " in README for kind in ("results", "compared"))


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


def test_the_note_tells_several_students_from_one_run():
    several = Report.load(ROOT / "benchmarks" / "results" / "digit_scenes_vilt.json")
    single = Report.load(ROOT / "tests" / "results" / "old_easy_vqa.json")
    others = "The other rows are one run each."
    assert others not in recipes_table({"several": several})
    assert others in recipes_table({"several": several, "single": single})
    assert recipes_table({"single": single}).endswith("Each row is one run.\n")


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
