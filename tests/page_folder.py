"""What the pages take for granted: models in the working directory, small and hardly trained, and a picture."""

from pathlib import Path

from tiny import vilt_fields
from transformers import AutoModelForVisualQuestionAnswering, ViltConfig, ViltForQuestionAnswering

from pumer_hf.data.scenes.digits import digit_scenes
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.models.families import DECODERS, preset
from pumer_hf.models.scorers import save_scorer
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.training.scorer import add_scorer

SCORER = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.2, "target_layer": 1}
PUMER = {**preset("vilt", "vqa"), "layers": [1, 2]}


def save_with_processor(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_encoders(folder: Path) -> None:
    """What `make demo` leaves, an elastic student, a scorer, and a stock ViLT where the Hub's is."""
    args = ModelArguments(config=vilt_fields(num_hidden_layers=4, max_position_embeddings=12))
    data = VQA.load(VqaDataArguments(train_scenes=200, eval_scenes=4, unknown_answers="ignore"), None)
    model, processor = build_teacher(args, data.labels, data.train["question"], 12)
    save_with_processor(model, processor, folder / "outputs/digit-scenes/teacher")
    for name in ("digit-scenes", "digit-scenes-elastic"):
        model.set_reduction(PUMER)
        save_with_processor(model, processor, folder / "outputs" / name / "student")
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(folder / "outputs/digit-scenes/teacher")
    add_scorer(loaded, SCORER)
    save_scorer(loaded, folder / "outputs/my-scorer", trained_on="nothing", steps=0)
    stock = ViltForQuestionAnswering(
        ViltConfig(**vilt_fields(num_hidden_layers=12, vocab_size=len(processor.tokenizer)))
    )
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
    digit_scenes("test", num_scenes=1)[0]["image"].save(folder / "scene.png")
    save_encoders(folder)
    if DECODERS:
        save_decoders(folder)
