"""The README's blocks run, its links lead somewhere, and its tables are what the results say."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pumer_hf.bench.tables import render, results_table
from pumer_hf.cli import build_parser
from pumer_hf.data.vqa import VqaDataArguments
from pumer_hf.training.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A folder with what the README takes for granted: the demo's checkpoints, and a stock ViLT where the Hub's is."""
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "pumer-hf":
            assert build_parser().parse_args(words[1:]).command == "convert"
        else:
            assert words[:3] == ["accelerate", "launch", "recipes/train_vqa.py"]
            default = ROOT / "recipes/vilt/digit_scenes/pumer.yaml"
            assert parse_recipe(VqaDataArguments, default, words[3:]).data.train_file == ["train.jsonl"]


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link


def test_tables_are_rendered_from_the_results():
    assert render(ROOT / "README.md") == README
    assert "results.json" in README


def test_a_table_row():
    report = {
        "teacher": {"accuracy": 95.123},
        "student": {"accuracy": 94.5},
        "baselines": {"majority": 10.0, "question_only": 30.04},
        "throughput": {"ratio": 1.756},
        "gflops": {"teacher": 0.01, "student": 0.005},
        "machine": {"processor": "Some CPU", "torch_threads": 2},
    }
    row = results_table({"some_task": report}).splitlines()[2]
    assert row == (
        "| some_task | 95.12 % | 94.50 % (-0.62) | 30.0 % | 1.76x | 0.0100 -> 0.0050 | Some CPU, 2 threads |"
    )
    report["machine"]["gpu"] = "Some GPU"
    assert "Some GPU" in results_table({"some_task": report})
