import json
from functools import cache

import pytest
from tiny import WIDTH, meter_fields

from laboratory.paper import TABLES
from laboratory.paper_tables import PaperReport, run_table
from pumer_hf.bench.contenders import BenchOptions
from pumer_hf.bench.full_size import paper_model


def small(backbone, task, reduction, image_size=384):
    """A model with the schedule of the paper, but narrow, and for smaller images."""
    if backbone == "vilt":
        sizes = {**WIDTH, "vocab_size": 50}
    else:
        sizes = meter_fields({"vocab_size": 50, "max_position_embeddings": 40, "pad_token_id": 1}, {"patch_size": 16})
        del sizes["num_hidden_layers"]  # as many as the paper's
    return paper_model(backbone, task, reduction, image_size // 2, **sizes)


def test_the_rows_of_a_table_have_labels_of_their_own():
    for number, rows in TABLES.items():
        assert len({row.label for row in rows}) == len(rows), number


SOME_ROWS = ("meter/snli_ve", "vilt/vqav2", "vilt/nlvr2")
"""Of Table 1, which has eight: both backbones, and one image and two."""


@pytest.fixture(scope="module")
def measured():
    """The lines and the report of a table, measured once; of Table 2 with its memory."""

    @cache
    def measure(number, rows):
        return run_table(number, BenchOptions(batch_size=1, seconds=0.01, memory=number == 2), small)

    return measure


@pytest.mark.parametrize(
    ("number", "some"),
    [
        pytest.param(1, SOME_ROWS, id="1 in part"),
        pytest.param(1, None, id="1", marks=pytest.mark.slow),
        pytest.param(2, None, id="2", marks=pytest.mark.slow),
        pytest.param(4, None, id="4", marks=pytest.mark.slow),
        pytest.param(7, None, id="7", marks=pytest.mark.slow),
    ],
)
def test_a_table_beside_the_paper(number, some, measured, monkeypatch):
    memory = number == 2
    if some is not None:
        monkeypatch.setitem(TABLES, number, tuple(row for row in TABLES[number] if row.label in some))
        assert len(TABLES[number]) == len(some)
    lines, report = measured(number, some)
    values = json.loads(json.dumps(report.to_dict()))
    assert PaperReport.from_dict(values) == report
    assert all(values["rows"][row.label]["paper"] for row in TABLES[number])
    assert list(report.rows) == [row.label for row in TABLES[number]]
    header, *cells = lines[0].splitlines()
    assert [line.startswith(row.label) for line, row in zip(cells, TABLES[number], strict=True)] == [True] * len(cells)
    for line, row in zip(cells, TABLES[number], strict=True):
        own = report.rows[row.label]
        if number == 7:
            assert own.gflops["ratio"] > 1.05
            assert f"({row.gflops[0]:g})" in line and f"({row.gflops[1]:g})" in line
        else:
            assert f"{own.throughput:.2f}x ({row.throughput:.2f}x)" in line
            assert own.gflops_ratio > 1
            assert (own.throughput_over_stock is not None) == (number == 1 and row.backbone == "vilt")
            assert (own.reduction_share is None) == (row.reduction is None)
            assert list(own.memory_saved) == (["inference", "training"] if memory else [])
            assert ("%)" in line) == memory
    assert ("over stock" in header) == (number != 7)


@pytest.mark.slow
def test_smaller_images_are_cheaper(measured):
    _, report = measured(2, None)
    rows = [own for label, own in report.rows.items() if label.startswith("unreduced")]
    for gains in ([own.gflops_ratio for own in rows], [own.memory_saved["training"] for own in rows]):
        assert gains == sorted(gains, reverse=True)
        assert len(set(gains)) == len(rows)
