"""Train students of a recipe from one teacher, a seed each, and write one report: mean, range and every run.

    python benchmarks/seeds.py recipes/vilt/digit_scenes/pumer.yaml \\
        --work outputs/digit-scenes-seeds -o benchmarks/results/digit_scenes_vilt.json

The first seed runs the recipe as it is, its teacher included; the others take that teacher. A quarter of an hour on
two cores, on which nothing else should run: each student is measured beside the teacher. A seed that is done in the
folder `--work` is not done again, so the same command goes on after an interruption. Other flags go to the recipe.
"""

from pathlib import Path

from laboratory.seeds import seeds_command

if __name__ == "__main__":
    seeds_command(__doc__ or "", root=Path(__file__).parents[1])
