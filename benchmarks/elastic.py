"""Compare one elastic student with one student for each speed, and with the frozen teacher behind lookahead.

    python benchmarks/elastic.py plain -o benchmarks/results/elastic/plain.json \\
        --teacher outputs/plain-0/teacher outputs/plain-1/teacher outputs/plain-2/teacher

For each teacher it trains a student for each of three speeds, an elastic student with as many steps as one of them
(`training.elastic: [0.0, 1.0]`), and a scorer of lookahead. All are evaluated at all three speeds. This takes about
ten minutes per teacher on two cores. Nothing else should run there while the speeds are measured.
"""

from pathlib import Path

from laboratory.elastic_command import elastic_command

if __name__ == "__main__":
    elastic_command(__doc__ or "", root=Path(__file__).parents[1])
