"""The addresses of the public data and checkpoints that the paper's recipes name, and the folders that they go to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .arguments import DataArguments


@dataclass(frozen=True)
class PublicData:
    """A public data set."""

    name: str
    files: dict[str, tuple[str, str]]
    """For the end of each file's path: the official address, and an instruction that ends before the name of a folder
    (`"unzip it into"`)."""
    pictures: tuple[tuple[str, str], ...]
    """Addresses and instructions for the folder of the images."""


COCO = "http://images.cocodataset.org/zips"
VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
NLVR2 = "https://raw.githubusercontent.com/lil-lab/nlvr/master/nlvr2/data"
DRIVE = "https://drive.google.com/file/d"
FLICKR30K_PICTURES = (("https://shannon.cs.illinois.edu/DenotationGraph/", "ask for the images, unpack them into"),)
PUBLIC_DATA = (
    PublicData(
        "VQA v2",
        {
            "v2_OpenEnded_mscoco_train2014_questions.json": (f"{VQA}/v2_Questions_Train_mscoco.zip", "unzip it into"),
            "v2_mscoco_train2014_annotations.json": (f"{VQA}/v2_Annotations_Train_mscoco.zip", "unzip it into"),
            "v2_OpenEnded_mscoco_val2014_questions.json": (f"{VQA}/v2_Questions_Val_mscoco.zip", "unzip it into"),
            "v2_mscoco_val2014_annotations.json": (f"{VQA}/v2_Annotations_Val_mscoco.zip", "unzip it into"),
        },
        tuple((f"{COCO}/{split}.zip", "unzip it into") for split in ("train2014", "val2014")),
    ),
    PublicData(
        "NLVR2",
        {f"nlvr2/{name}": (f"{NLVR2}/{name}", "save it in") for name in ("train.json", "dev.json", "test1.json")},
        (
            (
                "https://github.com/lil-lab/nlvr/tree/master/nlvr2#direct-image-download",
                "ask for the images, put train/, dev/ and test1/ into",
            ),
        ),
    ),
    PublicData(
        "SNLI-VE",
        {
            "snli_ve_train.jsonl": (f"{DRIVE}/1jQElLXUA5ps3OuiSMlJdKTRIMwZ_cJ2e/view", "save it in"),
            "snli_ve_dev.jsonl": (f"{DRIVE}/1M6uSoJ4rXXsygReioHSJg2Xgip2NLpJW/view", "save it in"),
            "snli_ve_test.jsonl": (f"{DRIVE}/1_n4g8sbw_P6KBayvJ9B8KklZDFr0uPsQ/view", "save it in"),
        },
        FLICKR30K_PICTURES,
    ),
    PublicData(
        "Flickr30k",
        {
            "dataset_flickr30k.json": (
                "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
                "unzip it into",
            )
        },
        FLICKR30K_PICTURES,
    ),
)
METER = "meter_clip16_288_roberta_pretrain.ckpt"
METER_ADDRESS = f"https://github.com/zdou0830/METER/releases/download/checkpoint/{METER}"
CHECKPOINTS = {
    "checkpoints/meter-pretrain": "--image-size 384",
    "checkpoints/meter-pretrain-nlvr2": "--task nlvr2 --image-size 288",
}
"""For each folder that recipes name: the flags that convert METER's checkpoint into it."""


def check_downloaded(args: DataArguments, checkpoint: str | None = None) -> None:
    """Raise `FileNotFoundError` if a public file or folder is missing. It says what to download, and where to.

    Args:
        args: the `data` block. Files that belong to no public data set are not checked here.
        checkpoint: the `model.checkpoint` of a recipe, if it has one.
    """
    files = list(dict.fromkeys(file for split in args.needed_splits for file in args.files(split) or []))
    lines = [] if args.dataset is not None else missing_data(files, args.image_dir)
    if checkpoint in CHECKPOINTS and not Path(checkpoint).exists():
        command = f"pumer-hf convert {METER} {checkpoint} {CHECKPOINTS[checkpoint]}"
        lines.append(f"{METER_ADDRESS} (save it here, then `{command}`)")
    if lines:
        missing = [name for name in (*files, args.image_dir, checkpoint) if name and not Path(name).exists()]
        listed = "".join(f"\n  {line}" for line in lines)
        raise FileNotFoundError(f"download first:{listed}\nand give the same command again: {missing[0]} is not there")


def missing_data(files: Sequence[str], image_dir: str | None) -> list[str]:
    """Return a line for each public download that is missing, for these files and the folder of their images."""
    lines = []
    for data in PUBLIC_DATA:
        downloads = {file: found for file in files if (found := _download_of(data, file)) is not None}
        lines += [
            f"{url} ({instruction} {Path(file).parent})"
            for file, (url, instruction) in downloads.items()
            if not Path(file).exists()
        ]
        if downloads and image_dir is not None and not Path(image_dir).exists():
            lines += [f"{url} ({instruction} {image_dir})" for url, instruction in data.pictures]
    return lines


def _download_of(data: PublicData, file: str) -> tuple[str, str] | None:
    """The address and the instruction for a file; None if the data set has no such file."""
    path = f"/{Path(file).as_posix()}"
    return next((found for name, found in data.files.items() if path.endswith(f"/{name}")), None)
