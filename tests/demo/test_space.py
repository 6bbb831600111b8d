"""The exported Space runs."""

import json

import pytest
import yaml
from PIL import Image
from tiny_tasks import LABELS, REDUCTION, save_tiny

import pumer_hf.demo
from pumer_hf.cli import main
from pumer_hf.demo import Asker, space
from pumer_hf.demo.examples import find_examples


@pytest.fixture(autouse=True)
def gradio(monkeypatch):
    """Exporting needs no more of Gradio than its version."""
    known = {"gradio": "6.1.2", "pumer-hf": "9.8.7"}
    monkeypatch.setattr(space, "version", known.__getitem__)


def run_app(folder, monkeypatch):
    """Run `app.py` as a Space does, up to the launch; returns the arguments of it."""
    launched = []
    monkeypatch.setattr(pumer_hf.demo, "launch", lambda **arguments: launched.append(arguments))
    monkeypatch.chdir(folder)
    exec(compile((folder / "app.py").read_text(), "app.py", "exec"), {})
    (arguments,) = launched
    return arguments


def test_a_space_with_its_models(tmp_path, monkeypatch, capsys):
    checkpoint = save_tiny(tmp_path / "student", "vilt", reduction=None)
    teacher = save_tiny(tmp_path / "teacher", "vilt", seed=1)
    dest = tmp_path / "space"
    flags = ["--teacher", teacher, "--reduction", json.dumps(REDUCTION), "--export-space", str(dest)]
    assert main(["demo", checkpoint, *flags]) == 0
    assert f"hf upload USER/NAME {dest} --type space" in capsys.readouterr().out
    assert (dest / "requirements.txt").read_text() == "pumer-hf[digits]==9.8.7\n"
    metadata = yaml.safe_load((dest / "README.md").read_text().split("---\n")[1])
    expected = {"title": "PuMer student", "sdk": "gradio", "sdk_version": "6.1.2", "app_file": "app.py"}
    assert metadata == {**expected, "pinned": False}
    arguments = run_app(dest, monkeypatch)
    assert arguments.pop("name") == "student"
    examples = arguments.pop("examples")
    asker = Asker.load(**arguments)
    assert asker.schedule.to_dict() == REDUCTION
    image, text = find_examples(examples, asker.model, asker.processor)[0]
    reply = asker.ask(image, text, REDUCTION, asker.comparisons[-1])
    assert set(reply.answers) == set(reply.full_answers) == set(LABELS["vqa"])
    assert reply.answers != reply.full_answers


def test_a_space_with_own_examples_and_requirement(tmp_path, monkeypatch):
    checkpoint = save_tiny(tmp_path / "student", "meter")
    own = tmp_path / "own"
    own.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (20, 30), (9, 8, 7)).save(own / "a.png", exif=turned)
    (own / "secret.txt").write_text("not an example")
    (own / "examples.jsonl").write_text(json.dumps({"image": "a.png", "text": "wo?"}))
    dest = tmp_path / "space"
    flags = ["--examples", str(own), "--export-space", str(dest), "--requirement", "git+https://example.org/it"]
    assert main(["demo", checkpoint, *flags]) == 0
    assert (dest / "requirements.txt").read_text() == "git+https://example.org/it\n"
    assert sorted(path.name for path in (dest / "examples").iterdir()) == ["0.png", "examples.jsonl"]
    arguments = run_app(dest, monkeypatch)
    assert "teacher" not in arguments
    asker = Asker.load(arguments["checkpoint"])
    ((image, text),) = find_examples(arguments["examples"], asker.model, asker.processor)
    assert (text, image.size, image.getpixel((0, 0))) == ("wo?", (30, 20), (9, 8, 7))


def test_models_on_the_hub_stay_there(tmp_path, monkeypatch):
    checkpoint = save_tiny(tmp_path / "student", "vilt")
    models = {name: Asker.load(checkpoint) for name in ("user/student", "user/teacher")}
    monkeypatch.setattr(space.Asker, "load", lambda source, teacher, **_: models[source])
    dest = space.export_space("user/student", str(tmp_path / "space"), "user/teacher", reduction=REDUCTION)
    assert sorted(path.name for path in dest.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    metadata = yaml.safe_load((dest / "README.md").read_text().split("---\n")[1])
    assert metadata["models"] == ["user/student", "user/teacher"]
    arguments = run_app(dest, monkeypatch)
    places = {"checkpoint": "user/student", "teacher": "user/teacher"}
    assert arguments == {**places, "examples": "digit-scenes", "reduction": REDUCTION}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--export-space", "."], "--export-space .: it exists and is not empty"),
        (["--export-space", "new", "--examples", "nowhere"], "there is no such file"),
        (["--requirement", "it"], "--requirement is for --export-space"),
        *(
            (["--export-space", "new", "--requirement", path], f"--requirement {path}: a Space has no files")
            for path in ("./it.whl", "/a/it.whl", "pumer-hf @ file:///a/it.whl", "-e it")
        ),
    ],
)
def test_errors(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", save_tiny("student", "vilt"), *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "new").exists()


def test_after_an_error_there_is_no_half_a_space(tmp_path, monkeypatch):
    checkpoint = save_tiny(tmp_path / "student", "vilt")
    monkeypatch.setattr(space, "readme", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        space.export_space(checkpoint, str(tmp_path / "space"))
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
