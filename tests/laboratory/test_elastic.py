"""The study of elastic students: its results and its table."""

from laboratory.elastic import TARGETS
from laboratory.elastic_results import ElasticReport, ElasticSeed, SpeedRow, alone, elastic_table
from pumer_hf.results import Environment


def seed(number, elastic):
    flat = {alone(target): [90.0, 90.0, 80.0] for target in TARGETS}
    others = {"not trained": [90.0, 85.0, 60.0], "lookahead": [92.0, 92.0, 91.0]}
    return ElasticSeed(number, 93.0, 92.5, {**flat, "elastic": elastic, **others})


def test_the_table_compares_the_elastic_student_with_each_other_model():
    rows = tuple(SpeedRow(target, {"method": "pumer"}, target + 0.01, 9, target) for target in TARGETS)
    seeds = (seed(0, [91.0, 90.0, 82.0]), seed(1, [92.0, 89.0, 84.0]))
    report = ElasticReport("plain", 800, 4000, rows, seeds, Environment())
    assert ElasticReport.from_dict(report.to_dict()) == report
    lines = elastic_table({"plain": report}).splitlines()
    assert lines[0] == "|  | 1.31x | 1.71x | 2.21x |"
    cells = {line.split(" | ")[0].removeprefix("| "): line.rstrip(" |").split(" | ")[1:] for line in lines}
    assert cells["one elastic student"][0] == "-1.50 [-2.00, -1.00]"
    own = "elastic minus the student for this speed"
    assert cells[own] == ["+1.50 [+1.00, +2.00]", "-0.50 [-1.00, +0.00]", "+3.00 [+2.00, +4.00]"]
    assert cells["elastic minus lookahead"][2] == "-8.00 [-9.00, -7.00]"
    assert cells["elastic minus lookahead, the teacher of 93.00 %"][2] == "-7.00"  # of the last seed
    assert "9 (1.30x), 9 (1.70x), 9 (2.20x) patches" in lines[-1]
