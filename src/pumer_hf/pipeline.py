"""The pipeline `pumer-vqa`, which answers questions about images. transformers 5 has no such pipeline any more."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import GeneratorType
from typing import Any

import torch
from huggingface_hub import CommitInfo
from huggingface_hub.utils import validate_repo_id
from torch import Tensor
from transformers import AutoModelForVisualQuestionAnswering, Pipeline, ProcessorMixin
from transformers.pipelines import PIPELINE_REGISTRY

from .folders import whole_folder
from .inputs import Encoder, encode_example
from .models.families import task_of

TASK = "pumer-vqa"
OVERRIDES = ("max_text_length", "keep_aspect_ratio")
"""The fields of [`EncodingRecord`] that a call may set."""


class PuMerVqaPipeline(Pipeline):
    """Answers questions about images: `pipeline("pumer-vqa", model=...)(image=..., question=..., top_k=5)`.

    Images are PIL images, numpy arrays, paths or URLs ([`open_image`]). Images and questions become inputs as in the
    training of the model; its processor says how ([`EncodingRecord`]). Questions are padded to one length, so an
    answer does not depend on what else is in its batch. If images keep their shape, a batch holds one example.
    """

    processor: ProcessorMixin | None
    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, model: Any, *args: Any, **kwargs: Any):
        super().__init__(model, *args, **kwargs)
        saved, head = (self.model.config.architectures or [None])[0], type(self.model).__name__
        if task_of(head) != "vqa" or saved not in (None, head):
            raise ValueError(
                f"{TASK} needs a model that answers questions (...ForQuestionAnswering), but "
                f"{self.model.name_or_path or 'the model'} is a {saved or head}"
            )
        if self.processor is None:
            raise ValueError(f"{TASK} needs a processor: give processor=..., or a model folder that has one")
        self.encoder = Encoder.of(self.model, self.processor)
        self.encoder.replace(**self._preprocess_params)  # raises if this model cannot do it
        self.processor = self.encoder.processor
        self.tokenizer = self.encoder.processor.tokenizer  # transformers reads it to make batches

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        max_text_length: int | None = None,
        keep_aspect_ratio: bool | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise ValueError(
                f"unknown argument {next(iter(unknown))!r}: {TASK} takes top_k, max_text_length and keep_aspect_ratio"
            )
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k={top_k!r}: must be an int of at least 1")
        before = {"max_text_length": max_text_length, "keep_aspect_ratio": keep_aspect_ratio}
        return (
            {name: value for name, value in before.items() if value is not None},
            {},
            {} if top_k is None else {"top_k": top_k},
        )

    def __call__(self, image: Any, question: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Answer questions.

        Args:
            image: a PIL image, a numpy array, a path or a URL; or a list of them. Without `question`: a dict with
                `image` and `question`, a list of such dicts, or a dataset (of `datasets` or torch) or generator of
                them.
            question: one question for all images, or one for each. Several questions may also share one image.
            **kwargs: `top_k` answers, default 5; `max_text_length` in tokens and `keep_aspect_ratio`, by default as in
                the training of the model; `batch_size` and `num_workers`, as in every pipeline.

        Returns:
            For one question, a list of `{"score": probability, "answer": text}`, the best first; for a list, a list of
            such lists; for a dataset or generator, an iterator over them.

        Raises:
            ValueError: an argument is wrong, or an image cannot be read; the message names the image and its place.
        """
        asked = {**self._preprocess_params, **kwargs}
        record = self.encoder.replace(**{name: asked.get(name) for name in OVERRIDES}).record
        if record.keep_aspect_ratio and (kwargs.get("batch_size") or self._batch_size or 1) > 1:
            raise ValueError(
                "keep_aspect_ratio=True needs batch_size=1, because images differ in shape: leave out batch_size, "
                "or make squares with keep_aspect_ratio=False"
            )
        inputs = image if question is None else self._examples(image, question)
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(with_origins(inputs), **kwargs)

    @staticmethod
    def _examples(image: Any, question: str | Sequence[str]) -> Any:
        if not isinstance(question, Sequence):
            raise ValueError(f"question={question!r}: must be a text, or a list of texts")
        several = isinstance(image, Sequence) and not isinstance(image, str)  # also a column of `datasets`
        if not several and isinstance(question, str):
            return {"image": image, "question": question}
        images = image if several else [image] * len(question)
        questions = [question] * len(images) if isinstance(question, str) else question
        if len(images) != len(questions):
            raise ValueError(
                f"{len(images)} images and {len(questions)} questions: give as many of both, or one of either"
            )
        return [{"image": source, "question": text} for source, text in zip(images, questions, strict=True)]

    def preprocess(
        self, example: Any, max_text_length: int | None = None, keep_aspect_ratio: bool | None = None
    ) -> dict[str, Tensor]:
        if not isinstance(example, dict) or not {"image", "question"} <= example.keys():
            raise ValueError(
                f"{TASK} needs an image and a question, got {type(example).__name__}: call it with "
                f"image=..., question=..."
            )
        if not isinstance(example["question"], str) or not example["question"].strip():
            raise ValueError(f"question={example['question']!r}: must be a text")
        return encode_example(
            self.model,
            self.processor,
            example["image"],
            example["question"],
            max_text_length,
            keep_aspect_ratio,
            example.get("origin", ""),
        )

    def _forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.model(**inputs).logits}

    def postprocess(self, outputs: dict[str, Tensor], top_k: int = 5) -> list[dict[str, Any]]:
        probabilities = outputs["logits"][0].float().sigmoid()  # VQA is trained with a sigmoid per answer
        scores, indices = probabilities.topk(min(top_k, len(probabilities)))
        names = self.model.config.id2label
        return [
            {"score": score, "answer": names[index]}
            for score, index in zip(scores.tolist(), indices.tolist(), strict=True)
        ]

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and processor, both or neither.

        Weights that were in the folder before are replaced; other files stay.

        Args:
            save_directory: the folder, which is made if there is none.
            **kwargs: those of the model's `save_pretrained`, such as `max_shard_size`.
        """
        if kwargs.get("push_to_hub"):
            raise ValueError("push_to_hub=True: call push_to_hub(repo_id) of the pipeline, which pushes both at once")
        from .hub.files import remove_stale_weights  # `import pumer_hf` needs no code of the Hub

        with whole_folder(save_directory) as folder:
            self.model.save_pretrained(folder, **kwargs)
            self.encoder.save_pretrained(folder)
            remove_stale_weights(Path(save_directory), {path.name for path in folder.iterdir()})

    def push_to_hub(self, repo_id: str, *, max_shard_size: str | None = None, **kwargs: Any) -> CommitInfo:
        """Push model, processor and a model card, in one commit.

        Args:
            repo_id: `"user/name"`, or `"name"` in the namespace of the token. It is made if it does not exist.
            max_shard_size: the largest size of a file with weights, such as `"5GB"`.
            **kwargs: those of [`push_folder`]: `private`, `revision`, `create_pr`, `commit_message`, `token`.

        Returns:
            The commit.
        """
        from .hub.push import clear_errors, push_folder

        with clear_errors(repo_id):
            validate_repo_id(repo_id)
        with TemporaryDirectory() as parent:
            folder = Path(parent, repo_id.split("/")[-1])  # the card takes its title from this name
            self.save_pretrained(folder, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
            return push_folder(folder, repo_id, **kwargs)


class DatasetWithOrigins(torch.utils.data.Dataset):
    """A dataset of `datasets` in the form that transformers' pipelines take. Each example says where it is from."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return with_origin(self.dataset[index], index)


def with_origins(inputs: Any) -> Any:
    """Add to each example of the inputs where it is from, for error messages."""
    if isinstance(inputs, list):
        return [with_origin(example, index) for index, example in enumerate(inputs)]
    if not isinstance(inputs, (GeneratorType, dict)):
        from datasets import Dataset, IterableDataset

        if isinstance(inputs, Dataset):
            return DatasetWithOrigins(undecoded(inputs))
        if isinstance(inputs, IterableDataset):
            inputs = (example for example in undecoded(inputs))
    if isinstance(inputs, GeneratorType):
        return (with_origin(example, index) for index, example in enumerate(inputs))
    return inputs


def undecoded(dataset: Any) -> Any:
    """Make a dataset of `datasets` give its images as files. The pipeline opens them itself."""
    from datasets import Image

    names = dataset.column_names
    if names is not None:
        if not {"image", "question"} <= set(names):
            raise ValueError(f"{TASK} needs the columns image and question, the dataset has {names}")
        dataset = dataset.select_columns([name for name in names if name in ("image", "question", "origin")])
    is_image = dataset.features is not None and isinstance(dataset.features["image"], Image)
    return dataset.cast_column("image", Image(decode=False)) if is_image else dataset


def with_origin(example: Any, index: int) -> Any:
    """Add to an example where it is from, unless it says so itself."""
    return {"origin": f"example {index}", **example} if isinstance(example, dict) else example


def register() -> None:
    """Make the task known to `transformers.pipeline`."""
    PIPELINE_REGISTRY.register_pipeline(
        TASK, PuMerVqaPipeline, pt_model=(AutoModelForVisualQuestionAnswering,), type="multimodal"
    )
