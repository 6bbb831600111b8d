"""The rows of the families of decoder models, each from its small file. They need transformers 5.18 or newer."""

from .family import DecoderFamily
from .gemma3 import GEMMA3
from .gemma4 import GEMMA4
from .idefics3 import IDEFICS3
from .internvl import INTERNVL
from .llava import LLAVA
from .llava_next import LLAVA_NEXT
from .llava_onevision import LLAVA_ONEVISION
from .paligemma import PALIGEMMA
from .qwen2_5_vl import QWEN2_5_VL
from .qwen2_vl import QWEN2_VL
from .qwen3_5 import QWEN3_5
from .qwen3_5_moe import QWEN3_5_MOE
from .qwen3_vl import QWEN3_VL
from .smolvlm import SMOLVLM

ROWS: tuple[DecoderFamily, ...] = (
    LLAVA,
    LLAVA_NEXT,
    LLAVA_ONEVISION,
    QWEN2_VL,
    QWEN2_5_VL,
    QWEN3_VL,
    INTERNVL,
    GEMMA3,
    PALIGEMMA,
    IDEFICS3,
    SMOLVLM,
    GEMMA4,
    QWEN3_5,
    QWEN3_5_MOE,
)
"""The families, in the order in which they are listed for users."""
