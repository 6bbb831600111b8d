"""Renders the tables of a document from the JSON files that recipes, the study and benchmarks write.

    python benchmarks/render.py README.md

A table stands between `<!-- KIND: FILE.json [FILE.json ...] -->` and `<!-- /KIND -->`. KIND is `results` for files of
recipes, `bench` for `pumer-hf bench` of an encoder and `prefill` for that of a decoder, `paper` for
`benchmarks/paper.py`, `onnx` for `pumer-hf export`, `measures` for `pumer-hf measure`, `lookahead` for
`benchmarks/lookahead.py` and `mass` for that with `--mass`, `elastic` for `benchmarks/elastic.py`, `decoders`, `short`
and `second` for `benchmarks/decoders.py`, and `sites` for `benchmarks/decoder_sites.py`. A table of the study stands
between `<!-- study: FOLDER DATA-BACKBONE -->` and `<!-- /study -->`, those of `benchmarks/vlm.py` between
`<!-- vlm: FOLDER -->` and `<!-- /vlm -->`. The paths are relative to the document.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pumer_hf.bench.decoder_report import DecoderReport as PrefillReport
from pumer_hf.bench.report import BenchReport
from pumer_hf.export.report import ExportReport
from pumer_hf.measures.report import ExplanationReport
from pumer_hf.results import Report, Results, best_of, markdown_table
from pumer_hf.results.metrics import with_range

from .bench_tables import bench_table, measures_table, onnx_table, paper_table, prefill_table
from .decoder_results import DecoderReport, decoder_table, short_table
from .elastic_results import ElasticReport, elastic_table
from .lookahead_mass import MassReport, mass_table
from .lookahead_results import LookaheadReport, lookahead_table
from .paper_tables import PaperReport
from .second_question import second_question_table
from .site_results import SiteReport, site_table
from .study_results import GroupResults
from .study_tables import compared_table, study_section
from .vlm_tables import vlm_section

BLOCK = re.compile(
    r"(?P<start><!-- (?P<kind>[a-z]+): (?P<names>[^>]+?) -->\n).*?(?P<end><!-- /(?P=kind) -->)", re.DOTALL
)
ONE_RUN = "Each row is one run."
SEVERAL_SEEDS = (
    "Where n is given, that many students were trained from one teacher, each with its own seed. The row has their "
    "mean, and [lowest, highest] of the change in points and of the speed."
)
OTHERS = " The other rows are one run each."


def recipes_table(reports: Mapping[str, Report]) -> str:
    """Return a table with a row per `results.json` of a recipe, by its name, and a note about the number of students.

    A row says how much accuracy the student loses, and how much faster it is.
    """
    rows = [["", "teacher", "reduced model", "baseline without image", "measured speed", "machine", "GFLOPs"]]
    for name, report in reports.items():
        teacher, student, gflops = report.evaluations["teacher"], report.evaluations["student"], report.cost.gflops
        baseline = best_of(report.baselines.values())
        rows.append(
            [
                row_name(name, report),
                str(teacher.main),
                f"{student.main} ({student_change(report)})",
                "" if baseline is None else baseline.text(1),
                student_speed(report),
                report.environment.machine_name,
                f"{gflops['teacher']:.4f} -> {gflops['student']:.4f}",
            ]
        )
    with_seeds = [bool(report.seeds) for report in reports.values()]
    note = SEVERAL_SEEDS + OTHERS * (not all(with_seeds)) if any(with_seeds) else ONE_RUN
    return f"{markdown_table(rows)}\n\n{note}\n"


def row_name(name: str, report: Report) -> str:
    """Return the name of a row. If its metric is not the accuracy, the name says the metric and its direction."""
    teacher = report.evaluations["teacher"]
    if teacher.main_name == "accuracy":
        return name
    lower = "" if teacher.main.higher_is_better else "; lower is better"
    return f"{name} ({teacher.main_name.replace('_', '-')}{lower})"


def student_change(report: Report) -> str:
    """Return the change of the student against its teacher, over the seeds if there are several."""
    teacher, student = report.evaluations["teacher"].main, report.evaluations["student"].main
    if report.seeds:
        changes = [run.student.main.value - teacher.value for run in report.seeds]
        return f"{with_range(changes, teacher.signed)} n={len(changes)}"
    return teacher.signed(student.value - teacher.value)


def student_speed(report: Report) -> str:
    """Return the measured speed of the student, over the seeds if there are several."""
    if report.seeds:
        speeds = [run.speed for run in report.seeds]
        return f"{mean(speeds):.2f}x [{min(speeds):.2f}x, {max(speeds):.2f}x]"
    return "" if report.cost.throughput is None else f"{report.cost.throughput.gain:.2f}x"


BLOCKS: Mapping[str, tuple[type[Results], Callable[[dict[str, Any]], str]]] = {
    "results": (Report, recipes_table),
    "bench": (BenchReport, bench_table),
    "prefill": (PrefillReport, prefill_table),
    "paper": (PaperReport, lambda reports: "\n".join(map(paper_table, reports.values()))),
    "onnx": (ExportReport, onnx_table),
    "measures": (ExplanationReport, measures_table),
    "lookahead": (LookaheadReport, lookahead_table),
    "mass": (MassReport, mass_table),
    "elastic": (ElasticReport, elastic_table),
    "decoders": (DecoderReport, decoder_table),
    "short": (DecoderReport, short_table),
    "second": (DecoderReport, second_question_table),
    "sites": (SiteReport, site_table),
    "compared": (GroupResults, compared_table),
}
"""The kinds of blocks. Each has the type of its files, and the function that makes its content from them."""


def render(document: Path) -> str:
    """Return the text of a document with its tables rendered again."""

    def block(match: re.Match[str]) -> str:
        kind, names = match["kind"], match["names"].split()
        if kind == "study":
            content = study_section(document, *names)
        elif kind == "vlm":
            content = "".join(vlm_section(document.parent / name) for name in names)
        elif kind in BLOCKS:
            files = [document.parent / name for name in names]
            reader, table = BLOCKS[kind]
            content = table({file.stem: reader.load(file) for file in files})
        else:
            return match[0]
        return match["start"] + content + match["end"]

    return BLOCK.sub(block, document.read_text(encoding="utf-8"))


def render_command(description: str, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/render.py`.

    Args:
        description: the text of `--help`.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="+", metavar="DOCUMENT.md")
    for document in parser.parse_args(arguments).documents:
        document.write_text(render(document), encoding="utf-8")
