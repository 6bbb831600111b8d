"""The exported Space installs and runs."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import metadata
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image
from tiny_tasks import LABELS, REDUCTION, save_tiny, without_record

import pumer_hf.demo
from pumer_hf.cli import main
from pumer_hf.demo import Asker, space
from pumer_hf.demo.examples import find_examples
from pumer_hf.demo.kinds import ENCODERS
from pumer_hf.encoding import EncodingRecord, saved_record
from pumer_hf.wheel import make_wheel


@pytest.fixture(autouse=True)
def gradio(monkeypatch):
    """Exporting needs no more of Gradio than its version."""
    monkeypatch.setattr(space, "version", {"gradio": "6.1.2"}.__getitem__)


def test_a_copied_model_says_how_its_inputs_are_made(tmp_path):
    folder = without_record(save_tiny(tmp_path / "run" / "student", "vilt"))
    data = {"max_text_length": 12, "keep_aspect_ratio": True}
    (tmp_path / "run" / "stages.json").write_text(json.dumps({"student": {"data": data}}))
    space.copied(folder, tmp_path / "space" / "model")
    assert saved_record(tmp_path / "space" / "model") == EncodingRecord(12, keep_aspect_ratio=True)


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
    printed = capsys.readouterr().out
    assert "hf repos create USER/NAME --type space --sdk docker" in printed
    assert f"hf upload USER/NAME {dest} --type space" in printed
    wheel, content = make_wheel()
    assert (dest / "requirements.txt").read_text() == f"gradio==6.1.2\n./{wheel}[digits]\n"
    assert (dest / wheel).read_bytes() == content
    metadata = yaml.safe_load((dest / "README.md").read_text().split("---\n")[1])
    assert metadata == {"title": "PuMer student", "sdk": "docker", "app_port": 7860, "pinned": False}
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
    assert (dest / "requirements.txt").read_text() == "gradio==6.1.2\ngit+https://example.org/it\n"
    assert not list(dest.glob("*.whl"))
    assert sorted(path.name for path in (dest / "examples").iterdir()) == ["0.png", "examples.jsonl"]
    arguments = run_app(dest, monkeypatch)
    assert "teacher" not in arguments
    asker = Asker.load(arguments["checkpoint"])
    ((image, text),) = find_examples(arguments["examples"], asker.model, asker.processor)
    assert (text, image.size, image.getpixel((0, 0))) == ("wo?", (30, 20), (9, 8, 7))


def test_models_on_the_hub_stay_there(tmp_path, monkeypatch):
    checkpoint = save_tiny(tmp_path / "student", "vilt")
    models = {name: Asker.load(checkpoint) for name in ("user/student", "user/teacher")}
    kind = replace(ENCODERS, load=lambda source, teacher, **_: models[source])
    monkeypatch.setattr(space, "kind_of", lambda source: kind)
    dest = space.export_space("user/student", str(tmp_path / "space"), "user/teacher", reduction=REDUCTION)
    written = {"Dockerfile", "README.md", "app.py", "requirements.txt", make_wheel()[0]}
    assert {path.name for path in dest.iterdir()} == written
    metadata = yaml.safe_load((dest / "README.md").read_text().split("---\n")[1])
    assert metadata["models"] == ["user/student", "user/teacher"]
    arguments = run_app(dest, monkeypatch)
    places = {"checkpoint": "user/student", "teacher": "user/teacher"}
    assert arguments == {**places, "examples": "digit-scenes", "reduction": REDUCTION}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--export-space", "."], "--export-space .: "),
        (["--export-space", "new", "--examples", "nowhere"], "no such file"),
        (["--requirement", "it"], "--requirement is for --export-space"),
        *(
            (["--export-space", "new", "--requirement", path], f"--requirement {path}: ")
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


def stub(folder, requirement, default="1"):
    """A wheel with nothing in it that meets a requirement, as an index would have it."""
    bounds = [one.version for one in requirement.specifier if one.operator in (">=", "==", "~=")]
    name, version = requirement.name.replace("-", "_"), (bounds or [default])[0]
    info = f"{name}-{version}.dist-info"
    with ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {requirement.name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def pip_plan(space, *flags):
    """What pip would install of a Space's requirements into an empty environment: name -> where from."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--ignore-installed"]
    command = [*pip, "--quiet", "--report", "-", "-r", "requirements.txt", *flags]
    process = subprocess.run(command, cwd=space, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    planned = json.loads(process.stdout)["install"]
    return {one["metadata"]["name"]: one["download_info"]["url"] for one in planned}


def exported(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "version", {"gradio": "6.1.2"}.__getitem__)
    return space.export_space(save_tiny(tmp_path / "student", "vilt"), str(tmp_path / "space"))


def test_its_requirements_resolve_without_an_index_that_has_us(tmp_path, monkeypatch):
    """The index here has what pumer-hf asks for, and not pumer-hf."""
    dest = exported(tmp_path, monkeypatch)
    index = tmp_path / "index"
    index.mkdir()
    wanted = [Requirement(line) for line in metadata("pumer-hf").get_all("Requires-Dist")]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": "digits"})]
    for requirement in (*wanted, Requirement("gradio==6.1.2")):
        stub(index, requirement)
    plan = pip_plan(dest, "--no-index", "--find-links", str(index))
    assert {one.name for one in wanted} | {"gradio", "pumer-hf"} == set(plan)
    assert "scikit-learn" in plan
    assert plan.pop("pumer-hf") == (dest / make_wheel()[0]).as_uri()
    assert all(url.startswith(index.as_uri()) for url in plan.values())


@pytest.mark.slow
def test_its_requirements_resolve_with_the_index_of_packages(tmp_path, monkeypatch):
    probe = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(tmp_path), "packaging"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("pip reaches no index of packages")
    monkeypatch.undo()  # the Gradio that is installed
    dest = space.export_space(save_tiny(tmp_path / "student", "vilt"), str(tmp_path / "space"))
    plan = pip_plan(dest)
    assert {"torch", "transformers", "gradio", "scikit-learn"} < set(plan)
    assert plan["pumer-hf"].startswith(dest.as_uri())


def test_its_image_copies_all_before_it_installs(tmp_path, monkeypatch):
    """A Space of the kind `gradio` would show pip its requirements.txt alone, and not the wheel beside it."""
    dest = exported(tmp_path, monkeypatch)
    steps = [shlex.split(line) for line in (dest / "Dockerfile").read_text().splitlines() if line]
    names = [step[0] for step in steps]
    assert names.index("COPY") < names.index("RUN", names.index("USER"))
    assert steps[0] == ["FROM", f"python:{sys.version_info.major}.{sys.version_info.minor}"]
    assert ["COPY", "--chown=user", ".", "."] in steps
    assert "GRADIO_SERVER_NAME=0.0.0.0" in {word for step in steps for word in step}
    assert re.search(r"RUN pip install .*-r requirements.txt", (dest / "Dockerfile").read_text())
    assert json.loads((dest / "Dockerfile").read_text().partition("CMD ")[2]) == ["python", "app.py"]
