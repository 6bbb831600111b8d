"""Decoder models on the Hub: what is pushed, what the card says and that its example runs, and loading from there."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard, constants
from PIL import Image
from tiny_llava import CHAT_TEMPLATE, save_tiny_llava
from tiny_models import FAMILIES, schedule
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, pipeline

from pumer_hf import PuMerCard, PuMerLlavaForConditionalGeneration, push_folder, reduced, remote_code
from pumer_hf.bench.decoder_report import DecoderReport
from pumer_hf.bench.decoders import rows, work_lines
from pumer_hf.cli import main
from pumer_hf.hub.push import files_to_push
from pumer_hf.models.bases import base_of
from pumer_hf.models.families import DECODERS
from pumer_hf.models.scorers import save_scorer
from pumer_hf.release import install_commands
from pumer_hf.results import BudgetRow, ScorerReport
from pumer_hf.training.scorer import add_scorer
from pumer_hf.wheel import make_wheel

# huggingface_hub's own way of calling its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "user/tiny-llava"
PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
INSIDE = {"method": "pumer", "layers": [1], "prune_ratio": 0.3, "image_merge_ratio": 0.2}
LOOKAHEAD = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 4, "target_layer": 1}
SAVED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "modeling_pumer.py",
    "processor_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
}
MADE = {"README.md", "results.json", make_wheel()[0]}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder of transformers' own class, whose processor has a chat template."""
    torch.manual_seed(0)
    return save_tiny_llava(tmp_path_factory.mktemp("stock") / "llava", CHAT_TEMPLATE)


@pytest.fixture
def folder(stock, tmp_path):
    """A folder of our class, with what a training leaves in it."""
    path = tmp_path / "student"
    PuMerLlavaForConditionalGeneration.from_pretrained(stock, reduction=PUMER).save_pretrained(path)
    AutoProcessor.from_pretrained(stock).save_pretrained(path)
    (path / "training_args.bin").write_bytes(b"pickle")
    return path


@pytest.fixture
def cache(hub, tmp_path, monkeypatch):
    """Models are loaded from the Hub of the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def inputs_of(processor):
    image = Image.new("RGB", (48, 48), "red")
    return processor(images=[image], text=["<image> user: what digit is red? assistant:"], return_tensors="pt")


def test_all_that_a_stranger_needs_is_pushed_and_loads(hub, cache, folder, capsys):
    assert main(["push", str(folder), NAME]) == 0
    assert f"/{NAME}/commit/" in capsys.readouterr().out
    files = hub.files(NAME)
    assert set(files) == {".gitattributes", *SAVED, *MADE}
    assert json.loads(files["config.json"])["auto_map"] == {
        "AutoConfig": "modeling_pumer.PuMerLlavaConfig",
        "AutoModelForImageTextToText": "modeling_pumer.PuMerLlavaForConditionalGeneration",
    }
    assert all(command.encode() in files["modeling_pumer.py"] for command in install_commands(NAME))
    processor = AutoProcessor.from_pretrained(NAME)
    assert processor.chat_template == CHAT_TEMPLATE
    model = AutoModelForImageTextToText.from_pretrained(NAME)
    assert type(model) is PuMerLlavaForConditionalGeneration
    assert model.config.reduction["method"] == "pumer"
    inputs = inputs_of(processor)
    local = PuMerLlavaForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), local.generate(**inputs, max_new_tokens=3))
    pipe = pipeline("image-text-to-text", model=NAME)
    assert type(pipe.model) is PuMerLlavaForConditionalGeneration


LOAD = """
import sys
from transformers import AutoModelForImageTextToText, pipeline

model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True)
model.save_pretrained("again")
pipe = pipeline("image-text-to-text", model=sys.argv[1], trust_remote_code=True)
print(type(model).__name__, type(pipe.model).__name__, model.config.reduction["method"])
"""


def test_remote_code_loads_it_where_nobody_imports_the_package(hub, folder, tmp_path):
    push_folder(folder, NAME)
    environment = {**os.environ, **hub.environment(tmp_path / "cache")}
    command = [sys.executable, "-c", LOAD, NAME]
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert process.returncode == 0, process.stderr
    ours = PuMerLlavaForConditionalGeneration.__name__
    assert process.stdout.splitlines()[-1] == f"{ours} {ours} pumer"
    saved = {path.name for path in (tmp_path / "again").iterdir()}  # it is saved with the code that it came with
    assert saved == {"config.json", "generation_config.json", "model.safetensors", "modeling_pumer.py"}


@pytest.mark.parametrize("name", DECODERS)
def test_the_remote_code_of_every_family_imports_its_classes(name):
    row = DECODERS[name]
    values = {}
    exec(remote_code.source(row.config_class.__name__), values)
    assert values[row.model_class.__name__] is row.model_class
    assert values[row.config_class.__name__] is row.config_class
    assert remote_code.config_auto_map(row.config_class.__name__, [row.model_class.__name__]) == {
        "AutoConfig": f"modeling_pumer.{row.config_class.__name__}",
        "AutoModelForImageTextToText": f"modeling_pumer.{row.model_class.__name__}",
    }


def test_a_folder_with_remote_code_still_loads_in_the_stock_class(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is LlavaForConditionalGeneration


def test_a_folder_saved_before_there_was_remote_code_gets_it(hub, folder):
    (folder / "modeling_pumer.py").unlink()
    config = json.loads((folder / "config.json").read_text())
    before = config.pop("auto_map")
    (folder / "config.json").write_text(json.dumps(config))
    push_folder(folder, NAME)
    assert set(hub.files(NAME)) == {".gitattributes", *SAVED, *MADE}
    assert json.loads(hub.files(NAME)["config.json"])["auto_map"] == before


def test_several_chat_templates_are_pushed(hub, cache, folder):
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template = {"default": CHAT_TEMPLATE, "short": "{{ messages[0]['role'] }}"}
    processor.save_pretrained(folder)
    assert main(["push", str(folder), NAME]) == 0
    assert "additional_chat_templates/short.jinja" in hub.files(NAME)
    published = files_to_push(folder, NAME)
    assert published.left_out == ("training_args.bin",)


def test_a_scorer_travels_with_its_model(hub, cache, stock, tmp_path):
    model = PuMerLlavaForConditionalGeneration.from_pretrained(stock).eval()
    add_scorer(model, LOOKAHEAD)
    model.save_pretrained(tmp_path / "student")
    processor = AutoProcessor.from_pretrained(stock)
    processor.save_pretrained(tmp_path / "student")
    push_folder(tmp_path / "student", NAME)
    card = hub.files(NAME)["README.md"].decode()
    assert "drop the patches to which a small scorer predicts that no later layer will attend" in card
    assert "train the scorer anew" in card
    loaded = AutoModelForImageTextToText.from_pretrained(NAME)
    for name, value in model.reducer.state_dict().items():
        assert torch.equal(loaded.reducer.state_dict()[name], value), name
    inputs = inputs_of(processor)
    one, other = (
        each.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True).reduction for each in (model, loaded)
    )
    assert torch.equal(one[0].kept, other[0].kept)


def test_push_to_hub_of_model_and_processor(hub, cache, folder):
    """transformers' own way. The card is then transformers', until `pumer-hf push` writes ours."""
    model = PuMerLlavaForConditionalGeneration.from_pretrained(folder)
    model.push_to_hub(NAME)
    AutoProcessor.from_pretrained(folder).push_to_hub(NAME)
    assert set(hub.files(NAME)) >= SAVED
    loaded = AutoModelForImageTextToText.from_pretrained(NAME)
    assert loaded.config.reduction == model.config.reduction
    assert AutoProcessor.from_pretrained(NAME).chat_template == CHAT_TEMPLATE
    assert ModelCard(hub.files(NAME)["README.md"].decode()).data.library_name == "transformers"


def test_a_stock_model_is_refused_with_the_way_to_make_one_of_ours(hub, stock, capsys):
    for command in (["push", str(stock), NAME], ["push", str(stock), NAME, "--dry-run"], ["card", str(stock)]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "model_type='llava' is transformers' own LLaVA-1.5" in error
        assert "PuMerLlavaForConditionalGeneration" in error
        assert "reduction=" in error and "save_pretrained" in error
    assert hub.requests == []
    assert not (stock / "README.md").exists()


def card_of(folder, *flags):
    assert main(["card", str(folder), *flags]) == 0
    return (folder / "README.md").read_text()


def test_the_metadata_is_what_the_hub_reads(folder):
    data = ModelCard(card_of(folder, "--base-model", "llava-hf/llava-1.5-7b-hf")).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert data.base_model == "llava-hf/llava-1.5-7b-hf"
    assert data.tags == ["llava", "pumer", "token-pruning", "token-merging"]
    again = PuMerCard.load(folder)
    assert again.base_model == "llava-hf/llava-1.5-7b-hf"
    assert card_of(folder) == (folder / "README.md").read_text()  # what is known stays known


def test_the_text_is_true_for_a_decoder(folder):
    text = card_of(folder)
    for part in (
        "LLaVA-1.5. It cuts its tokens inside the model: steps between its image encoder and its decoder merge",
        '"keep_ratio": 0.25',
        "It reaches neither the image encoder before it, nor the time that each word of the answer",
        "the Auto classes need `trust_remote_code=True`",
    ):
        assert part in text
    for wrong in ("cross-modal", "first layer", "text encoder", "trained with it", "## Speed", "scorer"):
        assert wrong not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", DECODERS)
def test_every_family_has_a_card(name, tmp_path):
    row = DECODERS[name]
    row.config_class(reduction=PUMER, architectures=[row.model_class.__name__]).save_pretrained(tmp_path)
    card = PuMerCard.from_checkpoint(tmp_path)
    assert (card.backbone, card.role, card.task) == (name, "student", None)
    text = card.render()
    assert f"{row.title}. It cuts its tokens" in text
    assert ModelCard(text).data.pipeline_tag == "image-text-to-text"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": row.stock_type}))
    with pytest.raises(ValueError, match=f"transformers' own {re.escape(row.title)}.*{row.model_class.__name__}"):
        PuMerCard.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("reduction", "where"),
    [
        (PUMER, "The cut comes before the decoder."),
        (INSIDE, "The cut comes inside the decoder."),
        ([PUMER, INSIDE], "The cut comes before and inside the decoder."),
    ],
)
def test_the_text_says_where_tokens_are_cut(reduction, where):
    parts = reduction if isinstance(reduction, list) else [reduction]
    text = PuMerCard(name="x", backbone="llava", reduction=reduction).render()
    assert where in text
    assert ("steps between its image encoder and its decoder merge" in text) == (PUMER in parts)
    assert ("some layers of its decoder prune" in text) == (INSIDE in parts)


def test_of_an_unreduced_model(folder):
    model = PuMerLlavaForConditionalGeneration.from_pretrained(folder)
    model.set_reduction(None)
    model.save_pretrained(folder)
    text = card_of(folder)
    assert "LLaVA-1.5, unreduced: it runs as the class of transformers" in text
    assert "- It does not reduce tokens." in text
    assert "teacher" not in text
    assert "```json" not in text


@pytest.mark.parametrize("with_chat", (True, False), ids=("chat", "prompt"))
def test_the_example_runs(with_chat, stock, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PuMerLlavaForConditionalGeneration.from_pretrained(folder).save_pretrained("user/mine")
    processor = AutoProcessor.from_pretrained(stock)
    processor.chat_template = processor.tokenizer.chat_template = CHAT_TEMPLATE if with_chat else None
    processor.save_pretrained("user/mine")
    assert main(["card", "user/mine"]) == 0
    Image.new("RGB", (24, 16), (200, 30, 10)).save("picture.png")
    text = (tmp_path / "user/mine/README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert ("apply_chat_template" in example) == with_chat
    capsys.readouterr()
    values = {}
    exec(compile(example, "README.md", "exec"), values)
    assert type(values["model"]) is PuMerLlavaForConditionalGeneration
    assert values["output"].shape[1] > values["inputs"]["input_ids"].shape[1]
    assert capsys.readouterr().out.endswith("\n")


@pytest.fixture(scope="module")
def measured(stock, tmp_path_factory):
    """What `pumer-hf bench` writes about a folder of ours, with the folder."""
    path = tmp_path_factory.mktemp("bench") / "student"
    PuMerLlavaForConditionalGeneration.from_pretrained(stock, reduction=PUMER).save_pretrained(path)
    AutoProcessor.from_pretrained(stock).save_pretrained(path)
    output = path.parent / "speed.json"
    flags = ["--seconds", "0.01", "--new-tokens", "2", "-o", str(output)]
    assert main(["bench", str(path), *flags]) == 0
    return path, output


def test_a_bench_report_gives_the_speed_of_the_card(measured):
    folder, output = measured
    text = card_of(folder, "--bench", str(output))
    report = DecoderReport.load(output)
    assert all(f"- {line}.".replace(str(folder), "student") in text for line in work_lines(report))
    for row in rows(report):
        assert f"| {' | '.join(cell.strip() for cell in row)} |" in text
    assert f"Measured on {report.environment.machine_name}. How many answers stay the same was not measured." in text
    assert text.index("at most") < text.index("| prefill |")  # the limit stands before the speed
    facts = (folder / "results.json").read_text()
    assert str(folder.parent) not in text + facts
    card = PuMerCard.load(folder)
    assert card.bench.speed == report.speed
    assert card.render() == text
    pushed = files_to_push(folder, NAME).published
    assert "| prefill |" in pushed["README.md"].decode()
    assert json.loads(pushed["results.json"])["bench"]["seconds"] == report.speed.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "qwen2_vl"}, r"bench\.family='qwen2_vl'.*'llava'"),
        ({"reduction": {**PUMER, "keep_ratio": 0.5}}, r"bench\.reduction=.*0\.5.*measure it"),
        ({"seconds": 3}, "no results that DecoderReport reads"),
    ],
)
def test_a_bench_report_of_something_else_is_refused(change, message, measured, folder, tmp_path, capsys):
    _, output = measured
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads(output.read_text()), **change}))
    assert main(["card", str(folder), "--bench", str(other)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "README.md").exists()


def test_broken_facts_name_their_file(folder):
    PuMerCard.from_checkpoint(folder).save(folder)
    facts = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**facts, "bench": {"family": "llava"}}))
    with pytest.raises(ValueError, match=rf"{re.escape(str(folder))}/results.json: its `bench`"):
        PuMerCard.load(folder)


def test_a_decoder_has_no_task_and_an_encoder_no_bench(measured, tmp_path, capsys):
    with pytest.raises(ValueError, match="task='vqa': a decoder"):
        PuMerCard("mine", "llava", "vqa")
    FAMILIES["vilt"].model(reduction=schedule("pumer", "small")).save_pretrained(tmp_path)
    assert main(["card", str(tmp_path), "--bench", str(measured[1])]) == 2
    assert "bench.family='llava': the model is of 'vilt'" in capsys.readouterr().err
    assert main(["card", str(tmp_path), str(tmp_path), "--base-model", "user/x"]) == 2
    assert "--base-model is for one FOLDER" in capsys.readouterr().err


@pytest.fixture
def scorer(stock, tmp_path):
    """The folder of a scorer for a stock decoder."""
    model = LlavaForConditionalGeneration.from_pretrained(stock).eval()
    add_scorer(model, LOOKAHEAD)
    save_scorer(base_of(model).host, tmp_path / "scorer", trained_on="3 examples", steps=3)
    row = BudgetRow("1/4", 9, {"lookahead": 0.75, "diverse": 0.5}, 1.5)
    ScorerReport({"1": 0.9}, 1, (row,), examples=8, batch_size=2).save(tmp_path / "scorer" / "results.json")
    return tmp_path / "scorer"


def test_the_card_of_a_scorer_is_true_for_a_decoder(hub, cache, scorer, stock, tmp_path, monkeypatch, capsys):
    assert main(["push", str(scorer), "user/scorer"]) == 0
    card = hub.files("user/scorer")["README.md"].decode()
    assert "A scorer of LLaVA-1.5" in card
    assert "dropped before the decoder sees them" in card
    assert "| 1/4 (9) | 75.0 % | 50.0 % | 1.50x |" in card
    assert "that begin with the same greedy tokens, on 8 examples" in card
    assert "here or in each `with` block" in card
    assert "load_checkpoint" not in card
    assert ModelCard(card).data.tags == ["llava", "pumer", "lookahead", "token-pruning"]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (24, 16), (200, 30, 10)).save("picture.png")
    (code,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    assert '"user/scorer"' in code
    assert '"llava"' in code  # the last part of the folder of the base
    capsys.readouterr()
    values = {}
    exec(code.replace('"llava"', repr(str(stock))), values)
    assert "generated_text" in capsys.readouterr().out
    inputs = inputs_of(values["processor"])
    with reduced(values["model"], values["reduction"]) as traces:
        values["model"].generate(**inputs, max_new_tokens=1)
    assert len(traces[0][0].kept) == 9
