"""Train several students of a recipe from one teacher, each with its own seed, and write one report about all of them.

    python benchmarks/seeds.py recipes/vilt/digit_scenes/pumer.yaml \\
        --work outputs/digit-scenes-seeds -o benchmarks/results/digit_scenes_vilt.json

The report has the mean, the range and every run. The first seed runs the whole recipe, with its teacher. The other
seeds use that teacher. With `--teacher FOLDER` all of them use the given one. All of it takes a quarter of an hour on
two cores. Nothing else should run there, because the speed of each student is measured. A seed that is done in the
folder `--work` is not done again, so the same command continues after an interruption. Other flags go to the recipe.
"""

from pathlib import Path

from laboratory.seeds import seeds_command

if __name__ == "__main__":
    seeds_command(__doc__ or "", root=Path(__file__).parents[1])
