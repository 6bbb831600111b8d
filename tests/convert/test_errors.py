"""What does not fit is an error that says what and how to mend it; nothing unsafe runs; nothing half-made stays."""

import os
import pickle

import pytest
import tiny_checkpoints as tiny
import torch

from pumer_hf import convert_checkpoint

MAKERS = {"vilt": tiny.original_vilt, "meter": tiny.original_meter}
SOME_NAMES = {
    "vilt": [
        "transformer.blocks.1.attn.qkv.weight",
        "transformer.blocks.0.attn.qkv.bias",
        "transformer.pos_embed",
        "text_embeddings.word_embeddings.weight",
        "text_embeddings.LayerNorm.bias",
        "token_type_embeddings.weight",
        "vqa_classifier.0.weight",
        "vqa_classifier.3.weight",
        "vqa_classifier.1.bias",
    ],
    "meter": [
        "vit_model.visual.positional_embedding",
        "vit_model.visual.conv1.weight",
        "vit_model.visual.transformer.resblocks.1.attn.in_proj_bias",
        "text_transformer.encoder.layer.0.attention.self.query.weight",
        "cross_modal_text_transform.weight",
        "cross_modal_image_layers.1.crossattention.output.LayerNorm.weight",
        "cross_modal_text_layers.0.intermediate.dense.weight",
        "vqa_classifier.3.bias",
    ],
}
CASES = [(family, name) for family, names in SOME_NAMES.items() for name in names]


def save(path, family, change):
    weights = MAKERS[family]("vqa_classifier")
    change(weights)
    return tiny.save_lightning(path / "model.ckpt", weights)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_renamed_key(family, name, tmp_path):
    def rename(weights):
        weights[name.replace(".", "._", 1)] = weights.pop(name)

    source = save(tmp_path, family, rename)
    with pytest.raises(ValueError) as caught:
        convert_checkpoint(source, tmp_path / "out")
    message = str(caught.value)
    assert f"missing: {name}" in message
    assert f"left over, with no place in the model: {name.replace('.', '._', 1)};" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt"]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_missing_key(family, name, tmp_path):
    source = save(tmp_path, family, lambda weights: weights.pop(name))
    with pytest.raises(ValueError, match=f"missing: {name}$"):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize("family", MAKERS)
def test_a_key_too_many(family, tmp_path):
    source = save(tmp_path, family, lambda weights: weights.update({"momentum.queue": torch.ones(2)}))
    with pytest.raises(ValueError, match="left over.*: momentum.queue$"):
        convert_checkpoint(source, tmp_path / "out")


def test_a_wrong_shape(tmp_path):
    source = save(tmp_path, "vilt", lambda weights: weights.update({"pooler.dense.bias": torch.ones(3)}))
    with pytest.raises(ValueError, match=r"pooler.dense.bias .*\(3,\), .*\(16,\)"):
        convert_checkpoint(source, tmp_path / "out")
    source = save(tmp_path, "vilt", lambda weights: weights.update({"transformer.pos_embed": torch.ones(1, 16, 16)}))
    with pytest.raises(ValueError, match="15 image positions"):
        convert_checkpoint(source, tmp_path / "out")
    name = "transformer.blocks.0.attn.qkv.weight"
    source = save(tmp_path, "vilt", lambda weights: weights.update({name: torch.ones(50, 16)}))
    with pytest.raises(ValueError, match=rf"{name} .*\(50, 16\): .*query, key and value"):
        convert_checkpoint(source, tmp_path / "out")


class Malicious:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04garbage", bytes(range(256))])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    source = tmp_path / "model.bin"
    source.write_bytes(content)
    with pytest.raises(ValueError, match="model.bin .*no PyTorch checkpoint"):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize("form", ["zip", "old", "pickle", "callbacks"])
def test_a_malicious_pickle_is_refused_and_its_code_does_not_run(form, tmp_path):
    trace, source = tmp_path / "it-ran", tmp_path / "model.ckpt"
    content = {"state_dict": {**tiny.original_vilt(), "x": Malicious(trace)}}
    if form == "pickle":
        source.write_bytes(pickle.dumps(Malicious(trace)))
    elif form == "callbacks":
        torch.save({"state_dict": tiny.original_vilt(), "callbacks": {"a": Malicious(trace)}}, source)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"model.ckpt .*more than tensors") as caught:
        convert_checkpoint(source, tmp_path / "out")
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()
    if form != "pickle":
        assert "mkdir" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_download_that_broke_off(part, zipped, tmp_path):
    source = tmp_path / "model.ckpt"
    torch.save({"state_dict": tiny.original_vilt("vqa_classifier")}, source, _use_new_zipfile_serialization=zipped)
    content = source.read_bytes()
    source.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=r"model.ckpt .*cut short \([\d,]+ bytes\)"):
        convert_checkpoint(source, tmp_path / "out")


def test_weights_of_a_folder_that_are_cut_short(tmp_path):
    tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    weights = tmp_path / "in" / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"pytorch_model.bin .*cut short"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out")


def test_a_malicious_release_is_refused(tmp_path):
    tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    torch.save({"x": Malicious(tmp_path / "it-ran")}, tmp_path / "in" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is refused"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04nonsense"])
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_broken_file(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is (refused|not a safetensors file)"):
        convert_checkpoint(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"state_dict": {"a": 1}}, {"epoch": 3}])
def test_a_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"model.ckpt (holds|is) (a list|no state dict)"):
        convert_checkpoint(tmp_path / "model.ckpt", tmp_path / "out")


def test_an_unknown_checkpoint(tmp_path):
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="what checkpoint this is: .*encoder.weight"):
        convert_checkpoint(tmp_path / "model.ckpt", tmp_path / "out")
    torch.save({"vit_model.layers.0.blocks.0.norm1.weight": torch.ones(2)}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="Swin"):
        convert_checkpoint(tmp_path / "model.ckpt", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value"), [("vit", "swin_base_patch4_window12_384"), ("tokenizer", "bert-base-uncased")]
)
def test_other_towers_of_meter(name, value, tmp_path):
    config = {**tiny.HYPER_PARAMETERS, name: value}
    source = tiny.save_lightning(tmp_path / "model.ckpt", tiny.original_meter("vqa_classifier"), config)
    with pytest.raises(ValueError, match=f"tower '{value}'"):
        convert_checkpoint(source, tmp_path / "out")


def test_the_kind_can_be_forced(tmp_path):
    source = save(tmp_path, "vilt", lambda weights: None)
    assert convert_checkpoint(source, tmp_path / "out", kind="original-vilt").is_dir()
    with pytest.raises(ValueError, match="left over.*transformer.blocks.0.norm1.weight"):
        convert_checkpoint(source, tmp_path / "out2", kind="original_meter")
    with pytest.raises(ValueError, match="kind='vit': .*original_vilt, original_meter, released_vilt"):
        convert_checkpoint(source, tmp_path / "out2", kind="vit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "captioning"}, "task='captioning': .*pretrain, vqa"),
        ({"task": "snli_ve"}, "task='snli_ve': .*no head.*: vqa"),
        ({"image_size": 33}, "image_size=33.* multiple .* 8"),
        ({"config": {"co_attention": "parallel"}}, "config.co_attention .*PuMerViltConfig"),
        ({"config": {"hidden_size": 24, "num_attention_heads": 2}}, "wrong shape"),
        ({"config": {"id2label": {1: "yes"}}}, "config.id2label: .*index 0: .*fill_labels"),
        ({"config": {"id2label": {"yes": 1}}}, "config.id2label: 'yes'"),
        ({"image_size": -8}, "image_size=-8"),
        ({"image_size": 0}, "image_size=0"),
        ({"config": [1]}, r"config=\[1\]: .*dict"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path):
    source = save(tmp_path, "vilt", lambda weights: None)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(source, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_several_heads(tmp_path):
    weights = tiny.original_vilt("vqa_classifier", "nlvr2_classifier")
    source = tiny.save_lightning(tmp_path / "model.ckpt", weights)
    with pytest.raises(ValueError, match=r"heads \(vqa, nlvr2\): .*task="):
        convert_checkpoint(source, tmp_path / "out")
    assert convert_checkpoint(source, tmp_path / "out", task="vqav2").is_dir()


def test_sources_and_destinations(tmp_path):
    with pytest.raises(ValueError, match="nothing.* neither"):
        convert_checkpoint(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ValueError, match="source='user/model'.* neither"):
        convert_checkpoint("user/model", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no weights: .*model.safetensors"):
        convert_checkpoint(tmp_path / "empty", tmp_path / "out")
    source = save(tmp_path, "vilt", lambda weights: None)
    for dest in (source, tmp_path):
        with pytest.raises(ValueError, match="not empty"):
            convert_checkpoint(source, dest)
    assert convert_checkpoint(source, tmp_path / "empty").is_dir()
    assert convert_checkpoint(source, tmp_path / "new" / "folder").is_dir()


def test_a_model_on_the_hub(tmp_path, monkeypatch):
    from pumer_hf.convert import sources

    tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    monkeypatch.setattr(
        sources, "snapshot_download", lambda name, allow_patterns: {"user/model": tmp_path / "in"}[name]
    )
    assert convert_checkpoint("user/model", tmp_path / "out").is_dir()
