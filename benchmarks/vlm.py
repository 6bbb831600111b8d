"""Compare methods of token reduction in a pretrained decoder model, on public sets, by accuracy and measured time.

    python benchmarks/vlm.py llava-hf/llava-1.5-7b-hf --limit 1000 --keep 0.5 0.33 0.11 --speed 1.5 -o outputs/vlm
    accelerate launch benchmarks/vlm.py llava-hf/llava-1.5-7b-hf --limit 1000 -o outputs/vlm
    python benchmarks/vlm.py llava-hf/llava-1.5-7b-hf --shard 2/4 --limit 1000 -o outputs/vlm
    python benchmarks/vlm.py MODEL --file my_questions.jsonl --metric vqa -o outputs/mine
    python benchmarks/vlm.py --render -o outputs/vlm

The first command runs every method on VQA v2, GQA, TextVQA, POPE, ChartQA, DocVQA and MMBench. Each result is a file
in the folder, and the same command goes on where it was ended. The second one splits the questions over all GPUs. The
third one is for the second of four machines, whose folders are put together later. The fourth one asks questions of
your own. The last one writes the tables into the README.md of the folder, as the others do at their end.

No other program should run on the machine, since each row is timed.
"""

from laboratory.vlm_command import vlm_command

if __name__ == "__main__":
    vlm_command(__doc__ or "")
