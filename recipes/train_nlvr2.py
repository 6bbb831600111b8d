"""Train PuMer for statements about two images (NLVR2): a teacher, then a student that prunes and merges tokens.

    accelerate launch recipes/train_nlvr2.py                                  # handwritten digits, from scratch
    accelerate launch recipes/train_nlvr2.py RECIPE.yaml --prune_ratio 0.2    # flags override the recipe
    accelerate launch recipes/train_nlvr2.py --checkpoint MODEL --train_file F --validation_file F   # own data
    accelerate launch recipes/train_nlvr2.py --help

Writes `teacher/` and `student/`, which load with `AutoModel.from_pretrained`, and `results.json`.
"""

from pumer_hf.recipes.runner import run_recipe

if __name__ == "__main__":
    run_recipe("nlvr2")
