from laboratory.bench_tables import bench_table, measures_table, onnx_table, paper_table
from laboratory.paper import TABLES
from pumer_hf import preset

MACHINE = {"processor": "Some CPU", "torch_threads": 2}


def test_a_row_of_a_benchmark():
    report = {
        "setting": "vilt/vqav2",
        "reduction": preset("vilt", "vqav2"),
        "dtype": {"unreduced": "float32", "stock": "float32", "reduced": "bfloat16"},
        "compiled": ["unreduced", "reduced"],
        "throughput": {
            "ratio": 1.8,
            "batch_size": 8,
            "unreduced": {"ratio": 1.0},
            "stock": {"ratio": 0.9},
            "reduced": {"ratio": 1.8},
        },
        "latency": {"reduced": {"ratio": 1.5}},
        "memory": {"inference": {"unreduced": 100, "reduced": 52}, "training": {"unreduced": 200, "reduced": 110}},
        "gflops": {"ratio": 1.83, "unreduced": 16.0, "stock": 16.0, "reduced": 8.7},
        "reduction_share": {"reduced": 0.018},
        "machine": MACHINE,
    }
    assert bench_table([report]).splitlines()[2] == (
        "| vilt/vqav2, bfloat16, compiled | 8 | 1.80x | 1.83x fewer | 2.00x | 1.50x | 52 % | 55 % | 1.8 % "
        "| Some CPU, 2 threads |"
    )
    precise = bench_table([{**report, "matmul_precision": "highest"}, {**report, "matmul_precision": "high"}])
    assert [line.split(" | ")[0] for line in precise.splitlines()[2:]] == [
        "| vilt/vqav2, bfloat16, compiled",
        "| vilt/vqav2, bfloat16, compiled, `--matmul-precision high`",
    ]
    pooled = bench_table([{**report, "pooled_only": ["unreduced", "reduced"]}, {**report, "pooled_only": []}])
    assert [line.split(" | ")[0] for line in pooled.splitlines()[2:]] == [
        "| vilt/vqav2, bfloat16, compiled, `pooled_only`",
        "| vilt/vqav2, bfloat16, compiled",
    ]
    tower = {**preset("meter", "vqav2"), "image_tower_merge_ratio": 0.08}
    less = {"setting": "meter/vqav2", "reduction": tower, "compiled": [], "machine": {**MACHINE, "gpu": "Some GPU"}}
    report |= less
    del report["latency"], report["memory"], report["throughput"]["stock"]
    assert bench_table([report]).splitlines()[2] == (
        "| meter/vqav2 with `tome` 0.08 at site `tower`, bfloat16 | 8 | 1.80x | 1.83x fewer |  |  |  |  | 1.8 % "
        "| Some GPU |"
    )


def test_a_table_of_the_paper():
    rows = {
        row.label: {"gflops": {"original": 92.04, "reduced": 64.94, "ratio": 1.417}, "paper": {}} for row in TABLES[7]
    }
    title, _, header, _, first, *_ = paper_table({"table": 7, "rows": rows, "machine": MACHINE}).splitlines()
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
    title, _, _, _, first, second, *_ = paper_table({"table": 1, "rows": rows, "machine": MACHINE}).splitlines()
    assert title == "PuMer, Table 1, on Some CPU, 2 threads, batch 2 to 8:"
    assert first == "| meter/retrieval | 1.50x (1.81x) | 1.80x |  | 0 % | -42 % (-38 %) | 2.0 % |"
    assert second == "| meter/vqav2 | 1.50x (1.82x) | 1.80x |  | 0 % | +3 % (-38 %) | 2.0 % |"


def test_a_row_of_an_export():
    speeds = {"pytorch_unreduced": 1.0, "onnxruntime_unreduced": 1.1, "pytorch": 1.8, "onnxruntime": 1.94}
    report = {
        "checkpoint": "outputs/vilt-vqav2",
        "throughput": {"batch_size": 8, **{name: {"ratio": ratio} for name, ratio in speeds.items()}},
        "machine": MACHINE,
    }
    assert onnx_table([report]).splitlines()[2] == (
        "| vilt-vqav2 | 8 |  | 1.80x | 1.10x | 1.94x |  | Some CPU, 2 threads |"
    )


def test_a_row_of_measures():
    layer = {"precision": 20.0, "random_precision": 10.0, "recall": 95.8, "random_recall": 52.7}
    report = {
        "layers": [{**layer, "recall": 99.0}, layer],
        "accuracy": {"reduced": 93.4},
        "sufficiency": 0.4,
        "random_sufficiency": 20.0,
        "comprehensiveness": 50.0,
        "random_comprehensiveness": 12.0,
    }
    assert measures_table({"some_method": report}).splitlines()[2] == (
        "| some_method | 93.40 % | 95.8 % (random 52.7 %) | 20.0 % (random 10.0 %) | 0.40 (random 20.00) "
        "| 50.00 (random 12.00) |"
    )
    assert measures_table({"alone": {"layers": [layer]}}).splitlines()[2].endswith("|  |  |")
