"""Measure the rows of a table of PuMer's paper, with full-size models of random weights, and show the paper's figures.

python benchmarks/paper.py 1                                    # 1, 2, 4 or 7
python benchmarks/paper.py 7 --no-memory -o benchmarks/results/bench/table7.json
"""

from laboratory.paper_command import paper_command

if __name__ == "__main__":
    paper_command(__doc__ or "")
