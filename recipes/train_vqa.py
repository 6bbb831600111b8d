"""Train PuMer for visual question answering: a teacher, then a student that prunes and merges its tokens.

    accelerate launch recipes/train_vqa.py                                  # handwritten digits, from scratch
    accelerate launch recipes/train_vqa.py RECIPE.yaml --prune_ratio 0.2    # flags override the recipe
    accelerate launch recipes/train_vqa.py --checkpoint MODEL --train_file F --validation_file F   # own data
    accelerate launch recipes/train_vqa.py --help

Writes `teacher/` and `student/`, which load with `AutoModel.from_pretrained`, and `results.json`.
"""

from pumer_hf.recipes.runner import run_recipe

if __name__ == "__main__":
    run_recipe("vqa")
