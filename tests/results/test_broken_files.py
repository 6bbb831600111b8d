"""Files of results that hold something wrong: the error names the file and the field."""

import json

import pytest

from pumer_hf.results import Report

TYPES = {"metrics": {"accuracy": {"unit": "%", "higher_is_better": True}}}
THROUGHPUT = {"batch_size": 1, "rounds": 1, "regime": "forward", "student": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"student": {}}, "no metric"),
        ({"student": {"questions": 4}}, "no metric.*questions"),
        ({"student": {"accuracy": 1.0, "bleu": 2.0}, **TYPES}, "bleu.*accuracy"),
        ({"student": {"accuracy": None}, **TYPES}, "accuracy=None"),
        ({"student": {"accuracy": True}, **TYPES}, "accuracy=True"),
        ({"student": {"accuracy": 1.0, "accuracy_by_kind": {"count": "x"}}, **TYPES}, "accuracy_by_kind.count='x'"),
        ({"student": {"accuracy": 1.0}, **TYPES, "baselines": {"majority": None}}, "baselines.majority=None"),
        ({"student": 5}, "student|Report"),
        ({"seeds": [{"seed": 1, "student": {}, "throughput": THROUGHPUT}]}, "no metric"),
        ({"command": ""}, "command=''"),
        ({"command": 5}, "command=5"),
        ({"command": "train.py", "argv": []}, r"argv=\[\]"),
        ({"command": "train.py", "argv": "abc"}, "argv='abc'"),
        ({"command": "train.py", "argv": ["train.py", 3]}, r"argv=\['train.py', 3\]"),
        ({"tokens_per_layer": {"student": [["many", 1]]}}, r"tokens_per_layer.student.*'many'"),
        ({"tokens_per_layer": {"student": [[1, 2, 3]]}}, r"tokens_per_layer.student.*\[1, 2, 3\]"),
        ({"tokens_per_layer": {"student": ["ab"]}}, r"tokens_per_layer.student.*'ab'"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(content, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"^{path}: .*({message})"):
        Report.load(path)
