"""Compare all methods of token reduction at the same measured speed.

    python benchmarks/study.py                     # ViLT on digit scenes: two hours on two cores
    python benchmarks/study.py --jobs 2            # the same, faster: two students at once
    python benchmarks/study.py --minutes 30        # a part of it; the same command continues later
    python benchmarks/study.py --list              # what there is to do, and what is done
    python benchmarks/study.py --only '*-pumer-main-1.7x-*'
    python benchmarks/study.py --size gpu          # METER and the other data sets too

For each data set and backbone, one teacher is trained by its recipe. Each method's schedule is scaled until the
measured speed of the student is 1.3, 1.7 or 2.2 times that of the teacher. Then one student per seed is trained from
the teacher. All students have the same steps, rates and order of the data. Ablations and methods without training
follow.

Each student, schedule and teacher has a JSON file in benchmarks/results/study. It is written when it is done, and it
is not done again while the file exists. So in a clone of the repository all of it is done; `--output FOLDER` does it
again, into another folder. README.md in the folder of the files has the tables. If a student fails, that is recorded,
and the others go on. If a schedule cannot reach its speed, it is recorded as out of reach, and no student is trained.
"""

from pathlib import Path

from laboratory.command import study_command

if __name__ == "__main__":
    study_command(__doc__ or "", root=Path(__file__).parents[1])
