"""Measure how accurate a frozen model stays if patches are dropped before its first layer, and how fast it becomes.

    python benchmarks/lookahead.py plain --teacher outputs/digit-scenes/teacher \\
        -o benchmarks/results/lookahead/plain.json
    python benchmarks/lookahead.py plain --carry --teacher outputs/digit-scenes/teacher \\
        -o benchmarks/results/lookahead/plain_carry.json
    python benchmarks/lookahead.py plain --mass --teacher outputs/plain-0/teacher outputs/plain-1/teacher \\
        outputs/plain-2/teacher -o benchmarks/results/lookahead/mass/plain.json

The first command trains a scorer per seed behind the teacher, and compares lookahead with the methods that need no
training, at 1/2, 1/3, 2/9 and 1/9 of the patches. The second one trains scorers on other data: fewer questions, other
scenes, without some words. The third one trains a scorer behind each of three teachers, and compares `keep_mass` with
the same number of patches for every question. Each takes about a quarter of an hour on two cores. Nothing else should
run there while the speeds are measured. Other flags change the data (`--train_file ...` for easy_vqa).
"""

from pathlib import Path

from laboratory.lookahead_command import lookahead_command

if __name__ == "__main__":
    lookahead_command(__doc__ or "", root=Path(__file__).parents[1])
