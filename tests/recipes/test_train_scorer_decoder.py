"""`pumer-hf train-scorer` for a decoder checkpoint, from begin to end."""

import json

import pytest
import torch
from tiny import noise
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from pumer_hf import reduced
from pumer_hf.data.chat import ChatCollator
from pumer_hf.hub.scorer import scorer_card
from pumer_hf.recipes import scorer as scorer_module
from pumer_hf.recipes.small_llava import new_llava
from pumer_hf.results import ScorerReport
from pumer_hf.training.sinks import SameImageCollator
from pumer_hf_cli import main

TEXTS = ["what digit is red?", "is there a red digit?", "what digit is blue?"]
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
QUICK = ["--steps", "3", "--answer-steps", "2", "--batch-size", "4", "--rank", "4"]
TRAINING = {"use_cpu": True, "disable_tqdm": True}


@pytest.fixture(autouse=True)
def quick_speed(monkeypatch):
    monkeypatch.setattr(scorer_module, "SPEED_SECONDS", 0.01)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    model, processor = new_llava(VISION, TEXT, [*TEXTS, "one two three"], mean=0.0, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for index in range(12):
        noise().save(folder / f"{index}.png")
        lines.append(json.dumps({"image": f"{index}.png", "question": TEXTS[index % 3]}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "rows.jsonl")


def command(base, data, out, *more, **training):
    flags = ["--out", str(out), *QUICK, "--training", json.dumps(TRAINING | training)]
    return main(["train-scorer", base, "--data", data, *flags, *more])


def test_a_scorer_is_trained_and_loaded(base, data, tmp_path, capsys):
    out = tmp_path / "scorer"
    assert command(base, data, out) == 0
    printed = capsys.readouterr().out
    report = ScorerReport.load(out / "results.json")
    assert set(report.layers) == {"0", "1", "2", "all"}
    assert [row.num_patches for row in report.rows] == [8, 5, 4, 2]
    for line in report.lines():
        assert line in printed
    assert json.loads((out / "reducer.json").read_text())["base_type"] == "pumer_llava"
    assert "A scorer of LLaVA-1.5" in scorer_card(out)
    use = {"method": "lookahead", "site": "inputs", "weights": str(out), "keep_ratio": 0.12}
    stock = LlavaForConditionalGeneration.from_pretrained(base).eval()
    row = {"image": noise(), "question": TEXTS[0]}
    inputs = ChatCollator(AutoProcessor.from_pretrained(base))([row])
    with torch.no_grad(), reduced(stock, use) as traces:
        logits = stock(**inputs).logits
    assert len(traces[0][0].kept) == 2
    ours = AutoModelForImageTextToText.from_pretrained(base).eval()
    assert type(ours) is LlavaForConditionalGeneration
    with torch.no_grad(), reduced(ours, use):
        assert torch.equal(ours(**inputs).logits, logits)


TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }} : {% for part in turn.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %} model :"
)


@pytest.fixture(scope="module")
def chat_base(base, tmp_path_factory):
    """The same model with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    LlavaForConditionalGeneration.from_pretrained(base).save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(base)
    processor.chat_template = TEMPLATE
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """Chats of one or two images, of one or two questions, and one without an image."""
    folder = tmp_path_factory.mktemp("chats")
    lines = []
    for index in range(12):
        names = [f"{index}.png", f"{index}b.png"][: 1 + index % 2]
        for name in names:
            noise().save(folder / name)
        question = {"type": "text", "text": TEXTS[index % 3]}
        turns = [{"role": "user", "content": [*[{"type": "image"}] * len(names), question]}]
        if index % 3 == 0:
            turns += [{"role": "assistant", "content": "two"}, {"role": "user", "content": TEXTS[1]}]
        turns += [{"role": "assistant", "content": "one"}]
        lines.append(json.dumps({"images": names, "messages": turns}))
    lines.append(json.dumps({"messages": [{"role": "user", "content": "what?"}]}))
    (folder / "chats.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "chats.jsonl")


def test_a_scorer_is_trained_on_chats(chat_base, chats, tmp_path, capsys, monkeypatch):
    prompts = []

    def prompts_of(collator, rows, texts):
        made = real(collator, rows, texts)
        prompts.extend(collator.processor.batch_decode(made["input_ids"]))
        return made

    real = ChatCollator._processed
    monkeypatch.setattr(ChatCollator, "_processed", prompts_of)
    out = tmp_path / "scorer"
    assert command(chat_base, chats, out, "--max-examples", "9") == 0
    printed = capsys.readouterr().out
    assert "(1 without an image is left out)" in printed
    record = json.loads((out / "reducer.json").read_text())
    assert record["trained_on"] == f"9 examples of {chats} (1 without an image is left out)"
    assert {text.count("<image>") for text in prompts} == {16, 32}
    assert any(text.count("?") == 2 for text in prompts)
    assert not any("one" in text for text in prompts)
    use = {"method": "lookahead", "site": "inputs", "weights": str(out), "keep_ratio": 0.12}
    with reduced(LlavaForConditionalGeneration.from_pretrained(chat_base).eval(), use):
        pass


def test_chats_need_a_template(base, chats, tmp_path, capsys):
    assert command(base, chats, tmp_path / "scorer") != 0
    assert "chat template" in capsys.readouterr().err


def test_a_finished_training_is_not_repeated_and_a_changed_target_is_told(base, data, tmp_path, capsys):
    out = tmp_path / "scorer"
    assert command(base, data, out, target_rows="answer") == 0
    before = (out / "reducer.safetensors").read_bytes()
    assert command(base, data, out, "--resume", target_rows="answer") == 0
    assert (out / "reducer.safetensors").read_bytes() == before
    capsys.readouterr()
    assert command(base, data, out, "--resume") != 0
    assert "target" in capsys.readouterr().err


def test_sinks_are_removed_where_images_have_several_questions(base, data, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for index in range(4):
        noise().save(folder / f"{index}.png")
        lines += [json.dumps({"image": f"{index}.png", "question": text}) for text in TEXTS]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    sizes, real = [], SameImageCollator.__call__
    monkeypatch.setattr(
        SameImageCollator, "__call__", lambda self, groups: sizes.append(list(map(len, groups))) or real(self, groups)
    )
    assert command(base, str(folder / "rows.jsonl"), tmp_path / "scorer", sinks="remove") == 0
    assert sizes == [[3]] * 3  # batches of four rows, nearly: those of one image
    assert json.loads((tmp_path / "scorer" / "training.json").read_text())["sinks"] == "remove"
    capsys.readouterr()
    assert command(base, data, tmp_path / "other", sinks="remove") != 0
    assert "no image of the data has several texts" in capsys.readouterr().err
    assert command(base, str(folder / "rows.jsonl"), tmp_path / "scorer", "--resume") != 0
    assert "sinks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--site", "tower", "--layers", "0"], "reduction.site='tower'"),
        (["--target-layer", "7"], "--target-layer 7: the model has layers 0, 1, 2"),
    ],
)
def test_what_a_decoder_lacks_is_an_error(flags, message, base, data, tmp_path, capsys):
    assert command(base, data, tmp_path / "scorer", *flags) != 0
    assert message in capsys.readouterr().err
