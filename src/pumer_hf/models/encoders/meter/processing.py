"""`PuMerMeterProcessor`: RoBERTa's tokenizer and CLIP's image processor, with METER's squares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import CLIPImageProcessorPil, PreTrainedTokenizerBase, ProcessorMixin, RobertaTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .... import remote_code
from .configuration import PuMerMeterConfig


class PuMerMeterProcessor(ProcessorMixin):
    """Makes `input_ids`, `attention_mask` and `pixel_values` (B, 3, image_size, image_size) from texts and images.

    The whole image is squeezed into the square. A converted checkpoint of METER's authors has a processor that cuts
    the square out of the middle.
    """

    def __init__(
        self,
        image_processor: CLIPImageProcessorPil | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        image_size: int,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
    ) -> "PuMerMeterProcessor":
        """Make a processor with METER's image processing: every image becomes a square.

        Args:
            tokenizer: the tokenizer of the text tower.
            image_size: side of the square in pixels.
            image_mean: mean of each of the three channels, in [0, 1], to normalise with.
            image_std: standard deviation of each of the three channels, above 0, to normalise with.
        """
        image_processor = CLIPImageProcessorPil(
            size={"height": image_size, "width": image_size},
            do_center_crop=False,
            image_mean=list(image_mean),
            image_std=list(image_std),
        )
        return cls(image_processor, tokenizer)

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save the processor, and the file with which `AutoProcessor` loads this class without `import pumer_hf`."""
        self.auto_map = remote_code.auto_map([type(self).__name__])
        remote_code.write_remote_code(save_directory, PuMerMeterProcessor.__name__)
        return super().save_pretrained(save_directory, push_to_hub, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Do nothing. `save_pretrained` writes what `AutoProcessor` needs."""


def new_meter_processor(
    config: PuMerMeterConfig, texts: Sequence[str], max_text_length: int, image_mean: float, image_std: float
) -> PuMerMeterProcessor:
    """Make a processor with a vocabulary from `texts`, and adapt `config` to it.

    Args:
        config: the config of the model.
        texts: the training texts.
        max_text_length: tokens per text. The model gets room for at least this many.
        image_mean: mean of the pixels in each channel, in [0, 1].
        image_std: standard deviation of the pixels in each channel, above 0.
    """
    text, image = config.text_config, config.vision_config
    max_length = max(max_text_length, config.max_text_length)
    tokenizer = build_roberta_tokenizer(texts, max_length)
    text.vocab_size, text.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    text.max_position_embeddings = max_length + text.pad_token_id + 1
    mean, std = [image_mean] * image.num_channels, [image_std] * image.num_channels
    return PuMerMeterProcessor.from_tokenizer(tokenizer, image.image_size, mean, std)


def build_roberta_tokenizer(texts: Sequence[str], max_length: int) -> RobertaTokenizer:
    """Make a RoBERTa tokenizer (byte-level BPE). Its merges are learned from `texts`."""
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    empty = RobertaTokenizer(vocab={token: index for index, token in enumerate(special)})
    tokenizer = empty.train_new_from_iterator(texts, vocab_size=30_000, show_progress=False)
    tokenizer.model_max_length = max_length
    return tokenizer
