"""Train a decoder model to answer questions about images, and report the accuracy of the answers that it generates.

    accelerate launch recipes/train_chat.py                                  # a small LLaVA from scratch
    accelerate launch recipes/train_chat.py RECIPE.yaml --seed 1             # flags override the recipe
    accelerate launch recipes/train_chat.py --help

Writes `teacher/`, which `AutoModelForImageTextToText.from_pretrained` loads, and `results.json`.
"""

from pumer_hf.recipes.chat import run_chat_recipe

if __name__ == "__main__":
    run_chat_recipe("recipes/llava/digit_scenes/teacher.yaml")
