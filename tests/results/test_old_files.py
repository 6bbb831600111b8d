"""The files in `benchmarks/results` are of versions before results were typed. They are read as they are."""

import json
from pathlib import Path

import pytest

from laboratory.decoder_results import DecoderReport
from laboratory.elastic_results import ElasticReport
from laboratory.lookahead_mass import MassReport
from laboratory.lookahead_results import LookaheadReport
from laboratory.paper_tables import PaperReport
from laboratory.site_results import SiteReport
from laboratory.study_results import GroupResults
from pumer_hf.bench.decoder_report import DecoderReport as DecoderBenchReport
from pumer_hf.bench.report import BenchReport
from pumer_hf.export.report import ExportReport
from pumer_hf.measures.report import ExplanationReport
from pumer_hf.results import Environment, Report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
KINDS = {
    "digit_scenes_*.json": Report,
    "easy_vqa_vilt.json": Report,
    "bench/cpu_vilt_*.json": BenchReport,
    "bench/cpu_meter_*.json": BenchReport,
    "bench/gpu_vilt_*.json": BenchReport,
    "bench/cpu_paligemma.json": DecoderBenchReport,
    "bench/cpu_llava_8_layers.json": DecoderBenchReport,
    "bench/cpu_table*.json": PaperReport,
    "bench/cpu_onnx_*.json": ExportReport,
    "kept/*.json": ExplanationReport,
    "lookahead/*.json": LookaheadReport,
    "lookahead/mass/*.json": MassReport,
    "elastic/*.json": ElasticReport,
    "decoders/*.json": DecoderReport,
    "decoders/sites/*.json": SiteReport,
    "study/*.json": GroupResults,
}
FILES = [(path.relative_to(RESULTS).as_posix(), kind) for glob, kind in KINDS.items() for path in RESULTS.glob(glob)]


def numbers(value, place=""):
    """The numbers of nested JSON by their place."""
    if isinstance(value, dict):
        parts = {f"{place}.{name}": own for name, own in value.items()}
    elif isinstance(value, list):
        parts = {f"{place}[{index}]": own for index, own in enumerate(value)}
    else:
        return {place: value} if isinstance(value, (int, float)) else {}
    return {name: number for where, own in parts.items() for name, number in numbers(own, where).items()}


def test_every_kind_of_file_is_there():
    assert {kind for _, kind in FILES} == set(KINDS.values())
    read = {name for name, _ in FILES}
    others = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.json")} - read
    assert others == {"distillation_step.json"}


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_an_old_file_keeps_all_its_numbers(name, kind):
    old = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    report = kind.load(RESULTS / name)
    new = numbers(report.to_dict())
    for place, number in numbers(old).items():
        assert new[place] == pytest.approx(number, rel=1e-15), place
    assert kind.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_an_old_report_says_percent_and_its_command_word_by_word():
    report = Report.load(Path(__file__).parent / "old_easy_vqa.json")
    assert str(report.evaluations["student"].main).endswith(" %")
    command = report.environment.command
    assert command.program == "train_vqa.py"
    assert json.loads(command.arguments[command.arguments.index("--teacher_training") + 1])["max_steps"] == 1800


@pytest.mark.parametrize("path", sorted((RESULTS / "study").glob("*.json")))
def test_the_cells_of_a_study_are_read(path):
    results = GroupResults.load(path)
    done = [cell for cell in results.cells if cell.status == "done"]
    assert len(done) > 40
    assert all(cell.value.unit == "%" and cell.speed > 0 and cell.by_group for cell in done)


def test_the_file_of_the_distillation_step_says_its_machine():
    values = json.loads((RESULTS / "distillation_step.json").read_text(encoding="utf-8"))
    assert Environment.from_dict(values).machine_name == "AMD EPYC, 2 threads"


@pytest.mark.parametrize("content", ['{"table": 1}', '{"throughput": 3}', '{"seeds": [{"seed": 1}]}'])
def test_a_file_with_something_else_is_named(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    kind = PaperReport if "table" in content else Report
    with pytest.raises(ValueError, match=f"{path}.*{kind.__name__}"):
        kind.load(path)
