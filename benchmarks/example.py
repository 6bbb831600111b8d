"""Make the example that the package carries anew: a model that its recipe has trained, and two pictures.

accelerate launch recipes/train_vqa.py recipes/vilt/digit_scenes_cluttered/pumer.yaml --seed 2 --method none
accelerate launch recipes/train_vqa.py recipes/vilt/digit_scenes_cluttered/lookahead.yaml --seeds 3 \\
    --teacher outputs/digit-scenes-cluttered/teacher
python benchmarks/example.py outputs/digit-scenes-cluttered-lookahead/student
"""

import argparse
import json
import shutil
from pathlib import Path

from pumer_hf.data.scenes.digits import digit_scenes
from pumer_hf.example import IMAGES, MODEL

NAMES = (
    *("config.json", "model.safetensors", "processor_config.json", "results.json"),
    *("tokenizer.json", "tokenizer_config.json"),
)
"""The files of a model that `import pumer_hf` loads. What a model needs on the Hub, such as its code, is left out."""
QUESTION = "what digit is red?"
"""Every picture of the example answers this question."""
SCENES = 40


def main() -> None:
    """Write the model and the pictures into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path, help="the folder of the trained model")
    student = parser.parse_args().student
    shutil.rmtree(MODEL, ignore_errors=True)
    Path(MODEL).mkdir(parents=True)
    for name in NAMES:
        shutil.copyfile(student / name, Path(MODEL, name))
    config = Path(MODEL, "config.json")
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields.pop("auto_map", None)  # names the code that is left out
    config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")

    rows = digit_scenes("test", SCENES, grid_size=8, setting="cluttered")
    for density, target in zip(("sparse", "dense"), IMAGES, strict=True):
        asked = (row for row in rows if row["density"] == density and row["question"] == QUESTION)
        next(iter(asked))["image"].save(target, optimize=True)


if __name__ == "__main__":
    main()
