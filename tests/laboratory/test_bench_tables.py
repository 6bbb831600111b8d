from laboratory.bench_tables import bench_table, measures_table, onnx_table, paper_table, prefill_table
from laboratory.paper import TABLES
from laboratory.paper_tables import PaperReport
from pumer_hf import preset
from pumer_hf.bench.decoder_report import DecoderReport
from pumer_hf.bench.report import BenchReport
from pumer_hf.export.report import ExportReport
from pumer_hf.measures.report import ExplanationReport

MACHINE = {"processor": "Some CPU", "torch_threads": 2}
SPEED = {"examples_per_second": 1.0, "slowest": 1.0, "fastest": 1.0}
RUN = {"batch_size": 8, "rounds": 5, "regime": "forward"}


def throughput_of(**ratios):
    return {**RUN, **{name: {**SPEED, "ratio": ratio} for name, ratio in ratios.items()}}


def first_cells(**changes):
    """The first cell of the row of a report that is changed so."""
    return bench_table({"one": BenchReport.from_dict({**REPORT, **changes})}).splitlines()[2].split(" | ")[0]


REPORT = {
    "setting": "vilt/vqav2",
    "reduction": preset("vilt", "vqav2"),
    "text_length": 32,
    "device": "cpu",
    "dtype": {"unreduced": "float32", "stock": "float32", "reduced": "bfloat16"},
    "compiled": ["unreduced", "reduced"],
    "throughput": throughput_of(unreduced=1.0, stock=0.9, reduced=1.8),
    "latency": {"rounds": 5, "reduced": {"p50": 1.0, "p90": 1.0, "p99": 1.0, "ratio": 1.5}},
    "memory": {
        "batch_size": 8,
        "inference": {"unreduced": 100, "reduced": 52},
        "training": {"unreduced": 200, "reduced": 110},
    },
    "gflops": {"ratio": 1.83, "unreduced": 15.92, "stock": 16.0, "reduced": 8.7},
    "reduction_share": {"reduced": 0.018},
    "machine": MACHINE,
}


def test_a_row_of_a_benchmark():
    assert bench_table({"one": BenchReport.from_dict(REPORT)}).splitlines()[2] == (
        "| vilt/vqav2, bfloat16, compiled | 8 | 1.80x | 1.83x fewer | 2.00x | 1.50x | 52 % | 55 % | 1.8 % "
        "| Some CPU, 2 threads |"
    )
    assert first_cells(matmul_precision="highest") == "| vilt/vqav2, bfloat16, compiled"
    assert first_cells(matmul_precision="high") == "| vilt/vqav2, bfloat16, compiled, `--matmul-precision high`"
    assert first_cells(pooled_only=["unreduced", "reduced"]) == "| vilt/vqav2, bfloat16, compiled, `pooled_only`"
    assert first_cells(pooled_only=[]) == "| vilt/vqav2, bfloat16, compiled"


def test_a_row_of_a_benchmark_without_stock_latency_and_memory():
    tower = {**preset("meter", "vqav2"), "image_tower_merge_ratio": 0.08}
    less = {"setting": "meter/vqav2", "reduction": tower, "compiled": [], "machine": {**MACHINE, "gpu": "Some GPU"}}
    less |= {"throughput": throughput_of(unreduced=1.0, reduced=1.8)}
    values = {name: value for name, value in REPORT.items() if name not in ("latency", "memory")} | less
    assert bench_table({"one": BenchReport.from_dict(values)}).splitlines()[2] == (
        "| meter/vqav2 with `tome` 0.08 at site `tower`, bfloat16 | 8 | 1.80x | 1.83x fewer |  |  |  |  | 1.8 % "
        "| Some GPU |"
    )


SECONDS = {"median": 1.0, "fastest": 1.0, "slowest": 1.0}
PREFILL = {
    "setting": "llava",
    "random_weights": True,
    "family": "llava",
    "reduction": {"method": "pumer", "layers": [7, 15], "prune_ratio": 0.3, "image_merge_ratio": 0.2},
    "conditions": {
        "device": "cpu",
        "dtype": "float32",
        "attention": "sdpa",
        "matmul_precision": "highest",
        "compiled": False,
        "batch_size": 1,
        "text_length": 60,
        "new_tokens": 0,
    },
    "image_tokens": {"unreduced": 576, "reduced": 576},
    "layer_tokens": {"announced": [576, 288, 288, 144], "measured": [576, 288, 288, 144]},
    "gmacs": {"unreduced": 10.0, "reduced": 5.0, "image_tower": 1.0, "text": 1.0, "first_layers": 2.0},
    "seconds": {
        "prefill": {"rounds": 5, "unreduced": SECONDS, "reduced": SECONDS, "ratio": 1.9},
        "reducer": SECONDS,
        "reducer_share": 0.012,
    },
    "cache_bytes": {"unreduced": 100, "reduced": 55},
    "weight_bytes": 1000,
    "machine": MACHINE,
}


def test_a_row_of_a_decoder():
    assert prefill_table({"one": DecoderReport.from_dict(PREFILL)}).splitlines()[2] == (
        "| llava, `pumer` 0.3 0.2 after layers [7, 15], float32 | 576 → 288 → 144 | 2.00x fewer | 2.50x | 1.90x "
        "| 0.95 | 1.2 % | 55 % |  | Some CPU, 2 threads |"
    )


def test_a_row_of_a_decoder_before_which_tokens_are_cut():
    changes = {
        "reduction": [{"method": "tome", "site": "inputs", "keep_ratio": 0.5}, PREFILL["reduction"]],
        "image_tokens": {"unreduced": 576, "reduced": 288},
        "layer_tokens": {},
        "memory": {"unreduced": 100, "reduced": 60},
        "conditions": {**PREFILL["conditions"], "batch_size": 4},
    }
    row = prefill_table({"one": DecoderReport.from_dict({**PREFILL, **changes})}).splitlines()[2]
    schedule = "`tome` 0.5 before the decoder, `pumer` 0.3 0.2 after layers [7, 15]"
    assert row.startswith(f"| llava, {schedule}, batch 4, float32 | 576 → 288 |")
    assert "| 60 % | Some CPU, 2 threads |" in row


def paper_report(number, rows):
    return PaperReport.from_dict({"table": number, "text_length": 32, "rows": rows, "machine": MACHINE})


def test_a_table_of_the_paper():
    rows = {
        row.label: {"gflops": {"original": 92.04, "reduced": 64.94, "ratio": 1.417}, "paper": {}} for row in TABLES[7]
    }
    title, _, header, _, first, *_ = paper_table(paper_report(7, rows)).splitlines()
    assert title == "PuMer, Table 7, on Some CPU, 2 threads:"
    assert header.startswith("| GFLOPs per example (paper) |")
    assert first == "| meter/vqav2 | 92.0 (92) | 64.9 (64.7) | 1.42x (1.42x) |"


def test_a_measured_table_of_the_paper_says_its_batches():
    own = {"throughput": 1.5, "gflops_ratio": 1.8, "reduction_share": 0.02}
    saved = [{"inference": 0.0, "training": 0.42}, {"inference": 0.004, "training": -0.03}]
    rows = {
        row.label: {**own, "batch_size": 2 + 6 * (index == 1), "memory_saved": saved[index % 2]}
        for index, row in enumerate(TABLES[1])
    }
    title, _, _, _, first, second, *_ = paper_table(paper_report(1, rows)).splitlines()
    assert title == "PuMer, Table 1, on Some CPU, 2 threads, batch 2 to 8:"
    assert first == "| meter/retrieval | 1.50x (1.81x) | 1.80x |  | 0 % | -42 % (-38 %) | 2.0 % |"
    assert second == "| meter/vqav2 | 1.50x (1.82x) | 1.80x |  | 0 % | +3 % (-38 %) | 2.0 % |"


def test_a_row_of_an_export():
    speeds = {"pytorch_unreduced": 1.0, "onnxruntime_unreduced": 1.1, "pytorch": 1.8, "onnxruntime": 1.94}
    values = {
        "checkpoint": "outputs/vilt-vqav2",
        "reduction": {"method": "pumer"},
        "text_length": 32,
        "files": {},
        "difference": {},
        "throughput": throughput_of(**speeds),
        "machine": MACHINE,
    }
    assert onnx_table({"one": ExportReport.from_dict(values)}).splitlines()[2] == (
        "| vilt-vqav2 | 8 |  | 1.80x | 1.10x | 1.94x |  | Some CPU, 2 threads |"
    )


def test_a_row_of_measures():
    layer = {"layer": 1, "examples": 3}
    layer |= {"precision": 20.0, "random_precision": 10.0, "recall": 95.8, "random_recall": 52.7}
    values = {
        "checkpoint": "outputs/x",
        "reduction": {"method": "pumer"},
        "data": "digit scenes",
        "examples": 3,
        "without_region": 0,
        "annotators": 1,
        "seed": 0,
        "layers": [{**layer, "recall": 99.0}, layer],
    }
    faithful = {
        "accuracy": {"reduced": 93.4},
        "sufficiency": 0.4,
        "random_sufficiency": 20.0,
        "comprehensiveness": 50.0,
        "random_comprehensiveness": 12.0,
    }
    report, alone = (ExplanationReport.from_dict({**values, **more}) for more in (faithful, {}))
    assert measures_table({"some_method": report}).splitlines()[2] == (
        "| some_method | 93.40 % | 95.8 % (random 52.7 %) | 20.0 % (random 10.0 %) | 0.40 (random 20.00) "
        "| 50.00 (random 12.00) |"
    )
    assert measures_table({"alone": alone}).splitlines()[2].endswith("|  |  |")
