"""Compare all methods of token reduction at the same measured speed.

    python benchmarks/study.py                     # ViLT on digit scenes: two hours on two cores
    python benchmarks/study.py --jobs 2            # the same, faster: two students at once
    python benchmarks/study.py --minutes 30        # a part of it; the same command goes on later
    python benchmarks/study.py --list              # what there is to do, and what is done
    python benchmarks/study.py --only '*-pumer-main-1.7x-*'
    python benchmarks/study.py --size gpu          # METER and the other data sets too

One teacher is trained per data set and backbone, by its recipe. Each method's schedule is scaled until the student
runs 1.3, 1.7 or 2.2 times as fast as the teacher, measured; then a student per seed is trained from the teacher, all
with the same steps, rates and order of the data. Ablations and methods without training follow.

Each student, schedule and teacher has a JSON file in benchmarks/results/study, written when it is done; what has a
file is not done again. So a clone of the repository finds all of it done; `--output FOLDER` runs it anew, into another
folder. README.md beside the files has the tables. A student that fails is recorded, and the others go on;
a schedule that cannot reach its speed is recorded as out of reach, and not trained.
"""

from pathlib import Path

from laboratory.command import study_command

if __name__ == "__main__":
    study_command(__doc__ or "", root=Path(__file__).parents[1])
