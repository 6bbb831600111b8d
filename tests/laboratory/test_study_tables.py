import json

import pytest

from laboratory.render import render
from laboratory.study_plot import curves, write_plots
from laboratory.study_results import read_study, summaries, winners
from laboratory.study_tables import study_report, study_section

GROUP = "digit_scenes-vilt"
MACHINE = {"processor": "Some CPU", "torch_threads": 2}
SCHEDULE = {"method": "pumer", "layers": [0, 2], "prune_ratio": [0.05, 0.4], "text_merge_ratio": 0.2}


def cell(method, target, seed=0, variant="main", title="all of it"):
    key = f"{GROUP}-{method}-{variant}-{target}-{seed}"
    return {
        "key": key,
        "group": GROUP,
        "title": title,
        "method": method,
        "target": target,
        "seed": seed,
        "variant": variant,
    }


def done(value, speed, reduction=None):
    return {"status": "done", "value": value, "speed": speed, "reduction": reduction, "gflops": {"student": 0.0079}}


@pytest.fixture
def folder(tmp_path):
    """A study by hand: a method that is fine, one that wins, one that is slow, an oracle, and what went wrong."""
    folder = tmp_path / "results" / "study"
    folder.mkdir(parents=True)
    results = [
        (cell("none", None), done(94.0, 1.0)),
        *((cell("pumer", 1.7, seed), done(93.0 + seed / 2, 1.71, SCHEDULE)) for seed in range(3)),
        *((cell("tip", 1.7, seed), done(93.75, 1.66)) for seed in range(2)),
        (cell("tip", 1.7, 2), None),
        (cell("tome", 1.7), done(94.5, 1.5)),
        (cell("grounded", 1.7), done(95.0, 1.7)),
        (cell("random", 1.7), {"status": "failed", "error": "ValueError: some: reason"}),
        (cell("pumer", 2.2), {"status": "out_of_reach", "speed": 1.9}),
        (cell("tip", 2.2), done(80.0, 2.5)),
        (cell("tome", 2.2), None),
        (cell("pumer", 1.7, variant="training_free", title="without training"), done(60.0, 1.71)),
        (cell("pumer", 1.7, variant="without_pruning", title="without pruning"), done(93.5, 1.4, SCHEDULE)),
        (cell("pumer", 1.7, variant="late_layers", title="later layers"), None),
    ]
    (folder / "plan.json").write_text(json.dumps({"cells": [planned for planned, _ in results]}))
    for planned, result in results:
        if result is not None:
            (folder / f"{planned['key']}.json").write_text(json.dumps({**planned, **result}))
    teacher = {"metric": "accuracy", "value": 93.75, "gflops": 0.01675, "machine": MACHINE}
    (folder / f"{GROUP}-teacher.json").write_text(json.dumps(teacher))
    return folder


MAIN_TABLE = """\
Teacher: 93.75 % accuracy, 0.0168 GFLOPs. Speeds are of Some CPU, 2 threads. \
Unreduced, trained on like the students: +0.25 n=1.

| method | 1.7x | 2.2x |
| --- | --- | --- |
| pumer | -0.25 [-0.75, +0.25] n=3, 1.71x | out of reach, at most 1.90x |
| tip | **+0.00** [+0.00, +0.00] n=2, 1.66x; 1 not run | **-13.75** n=1, 2.50x (!) |
| tome | +0.75 n=1, 1.50x (!) | not run |
| grounded (oracle) | +1.25 n=1, 1.70x |  |
| random | 1 failed: ValueError |  |
"""
ABLATIONS = """\
Ablations of pumer at 1.7x, seed 0:

|  | schedule | change | GFLOPs |
| --- | --- | --- | --- |
| all of it | layers 0, 2; prune 0.05, 0.4; text merge 0.2 | -0.75 n=1, 1.71x | 0.0079 |
| without pruning | layers 0, 2; prune 0.05, 0.4; text merge 0.2 | -0.25 n=1, 1.40x | 0.0079 |
| later layers |  | not run |  |
"""
TRAINING_FREE = """\
| method | 1.7x |
| --- | --- |
| pumer | **-33.75** n=1, 1.71x |
"""


def test_the_report_of_a_study(folder):
    report = study_report(folder)
    for part in (MAIN_TABLE, ABLATIONS, TRAINING_FREE):
        assert part in report
    assert "Ablations of tip" not in report
    assert "told where to look" in report


def test_who_wins(folder):
    cells = [found for found in read_study(folder).of(GROUP, "main") if found["method"] != "none"]
    by_row = summaries(cells, "method", "target")
    # tome is better at 1.7x but too slow, and the oracle does not compete
    assert winners(by_row) == {("tip", 1.7), ("tip", 2.2)}


def test_plots(folder):
    lines = curves(read_study(folder), GROUP)
    assert lines == {
        "pumer": [(1.71, [93.0, 93.5, 94.0])],
        "tip": [(1.66, [93.75, 93.75]), (2.5, [80.0])],
        "tome": [(1.5, [94.5])],
        "grounded": [(1.7, [95.0])],
    }
    (path,) = write_plots(folder)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5_000
    write_plots(folder)
    assert path.read_bytes() == content


def test_a_document_shows_a_group(folder):
    document = folder.parents[1] / "README.md"
    start, end = f"<!-- study: results/study {GROUP} -->\n", "<!-- /study -->"
    document.write_text(f"Before\n{start}old\n{end}\nafter\n")
    rendered = render(document)
    assert rendered.startswith(f"Before\n{start}{MAIN_TABLE}")
    assert rendered.endswith(f"{end}\nafter\n")
    assert ".png" not in rendered
    write_plots(folder)
    picture = f"\n![Accuracy against measured speed, {GROUP}](results/study/{GROUP}.png)\n{end}"
    assert picture in render(document)
    document.write_text(render(document))
    assert render(document) == document.read_text()


def test_a_document_says_what_has_not_been_run(folder):
    document = folder.parents[1] / "README.md"
    assert study_section(document, "results/other", GROUP) == "Not run yet: `python benchmarks/study.py`.\n"
    assert "has not been run yet" in study_section(document, "results/study", "easy_vqa-vilt")


def test_no_study_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no study"):
        study_report(tmp_path)


def test_a_broken_result_counts_as_not_run(folder):
    (folder / f"{cell('tome', 1.7)['key']}.json").write_text('{"status": ')
    assert "| tome | not run | not run |" in study_report(folder)


def test_retrieval_is_about_recall(folder):
    path = folder / f"{GROUP}-teacher.json"
    teacher = {**json.loads(path.read_text()), "metric": "text_to_image_recall@1"}
    path.write_text(json.dumps(teacher))
    assert "93.75 % text-to-image recall@1" in study_report(folder)
