"""Compare all methods of token reduction at the same measured speed.

    python benchmarks/study.py                     # ViLT and METER on digit scenes: eight hours on two cores
    python benchmarks/study.py --jobs 2            # the same, faster: two students at once
    python benchmarks/study.py --minutes 30        # a part of it; the same command continues later
    python benchmarks/study.py --list              # what there is to do, and what is done
    python benchmarks/study.py --only 'digit_scenes_cluttered-vilt-*-untrained-*'
    python benchmarks/study.py --shard 2/4         # the part of the second of four machines
    python benchmarks/study.py --size gpu          # the other data sets too, and longer trainings

For each data set, backbone and seed, one teacher is trained by its recipe, and a scorer of `lookahead` behind it.
Each method's schedule is scaled until the measured speed of the student is 1.3, 1.7 or 2.2 times that of the teacher
(METER: 1.3 or 1.5 times). Then each method is evaluated with the weights of each teacher, and students are trained
from them. All students have the same steps, rates and order of the data. Ablations of PuMer follow.

Each student, schedule and teacher has a JSON file in the folder `--output`. It is written when it is done, and it is
not done again while the file exists. If a student fails, that is recorded, and the others go on. If a schedule cannot
reach its speed, it is recorded as out of reach, and no student is trained. At the end the files are joined to one per
data set and backbone in benchmarks/results/study, with tables and plots.
"""

from pathlib import Path

from laboratory.command import study_command

if __name__ == "__main__":
    study_command(__doc__ or "", root=Path(__file__).parents[1])
