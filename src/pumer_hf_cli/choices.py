"""The choices of the flags. They are repeated here so that the help imports nothing; a test compares them."""

ATTENTIONS = ("eager", "sdpa")
BACKBONES = ("vilt", "meter")
CONVERT_TASKS = ("pretrain", "vqa", "nlvr2", "snli_ve", "retrieval")
DECODER_SETTINGS = (
    *("paligemma", "llava", "llava_8_layers", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl_3b"),
    *("qwen2_5_vl", "qwen3_vl_2b", "qwen3_vl", "internvl3", "gemma3", "smolvlm", "smolvlm_256m"),
)
DEVICES = ("cpu", "cuda")
DIVERSITIES = ("dpp", "max_min", "none")
DTYPES = ("float32", "bfloat16", "float16")
FORMS = ("bag", "words", "gated", "block")
KINDS = ("original_vilt", "original_meter", "released_vilt", "released_meter", "stock_vilt")
MATMUL_PRECISIONS = ("highest", "high", "medium")
SCORER_SITES = ("inputs", "tower")
TASKS = ("vqa", "nlvr2", "snli_ve", "retrieval")


def in_words(choices: tuple[object, ...]) -> str:
    """Join choices for a sentence: `1, 2, 4 or 7`."""
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}"
