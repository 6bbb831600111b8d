"""Render the tables of documents anew, from the JSON files that recipes, the study and benchmarks write.

python benchmarks/render.py README.md benchmarks/results/bench/README.md
"""

from laboratory.render import render_command

if __name__ == "__main__":
    render_command(__doc__ or "")
