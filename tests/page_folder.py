"""What the pages take for granted: small models in the working directory, and a picture."""

import shutil
from pathlib import Path

from tiny import vilt_fields
from transformers import AutoModelForVisualQuestionAnswering, AutoProcessor, ViltConfig, ViltForQuestionAnswering

from pumer_hf.example import IMAGES, MODEL
from pumer_hf.models.families import DECODERS, preset
from pumer_hf.models.scorers import save_scorer
from pumer_hf.training.scorer import add_scorer

SCORER = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.2, "target_layer": 1}
PUMER = {**preset("vilt", "vqa"), "layers": [1, 2]}


def save_with_processor(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_encoders(folder: Path) -> None:
    """What `make demo` leaves, an elastic student, a scorer, and a stock ViLT where the Hub's is."""
    model = AutoModelForVisualQuestionAnswering.from_pretrained(MODEL)
    processor = AutoProcessor.from_pretrained(MODEL)
    save_scorer(model, folder / "outputs/my-scorer", trained_on="digit scenes", steps=0)
    model.set_reduction(None)
    save_with_processor(model, processor, folder / "outputs/digit-scenes/teacher")
    model.set_reduction(PUMER)
    for name in ("digit-scenes", "digit-scenes-elastic"):
        save_with_processor(model, processor, folder / "outputs" / name / "student")
    words = {"num_hidden_layers": 12, "vocab_size": len(processor.tokenizer)}
    stock = ViltForQuestionAnswering(ViltConfig(**vilt_fields(**words)))
    save_with_processor(stock, processor, folder / "dandelin/vilt-b32-finetuned-vqa")


def save_decoders(folder: Path) -> None:
    """A LLaVA where the Hub's is and in `outputs`, with a scorer."""
    from tiny_llava import CHAT_TEMPLATE, save_tiny_llava  # it needs what an older transformers lacks

    save_tiny_llava(folder / "llava-hf/llava-1.5-7b-hf", CHAT_TEMPLATE, num_layers=6)
    save_tiny_llava(folder / "outputs/llava", CHAT_TEMPLATE, num_layers=6)
    model = DECODERS["llava"].model_class.from_pretrained(folder / "outputs/llava").eval()
    add_scorer(model, SCORER)
    save_scorer(model, folder / "outputs/my-llava-scorer", trained_on="nothing", steps=0)


def save_all(folder: Path) -> None:
    """Everything that a page may use."""
    shutil.copy(IMAGES[0], folder / "scene.png")
    save_encoders(folder)
    if DECODERS:
        save_decoders(folder)
