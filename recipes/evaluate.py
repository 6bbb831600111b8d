"""Evaluate a trained model on a split of a recipe's data, or answer VQA v2's test questions for the leaderboard.

    accelerate launch recipes/evaluate.py vqa --model outputs/digit-scenes/student
    accelerate launch recipes/evaluate.py nlvr2 recipes/vilt/nlvr2/pumer.yaml --model outputs/vilt-nlvr2/student
    accelerate launch recipes/evaluate.py vqa recipes/vilt/vqav2/pumer.yaml --model outputs/vilt-vqav2/student \\
        --questions v2_OpenEnded_mscoco_test2015_questions.json --image_dir test2015 --submission answers.json

`-o FILE.json` writes the metrics to a file. Further flags are those of the recipe (`train_vqa.py --help` lists them).
"""

from pumer_hf.recipes.evaluation import evaluate_recipe

if __name__ == "__main__":
    evaluate_recipe(__doc__ or "")
