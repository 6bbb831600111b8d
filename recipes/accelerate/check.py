"""Check that several processes train like one: compare the losses of a few steps under each launch config.

    python recipes/accelerate/check.py                                      # two GPUs, over NCCL; or two CPU processes
    python recipes/accelerate/check.py --num_processes 4 --configs zero3
    python recipes/accelerate/check.py --cpu --configs ddp zero2            # two CPU processes, over gloo

Without a GPU, the processes run on the CPU. If DeepSpeed is not installed, its configs are left out.

All configs have the same global batch, so they must have the same losses, also of distillation. They must also save
the same plain folder: the same files, and weights of the same shapes and dtypes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from accelerate.utils import is_deepspeed_available
from safetensors import safe_open

FOLDER = Path(__file__).parent
CONFIGS = ("ddp", "zero2", "zero3", "fsdp")
DEEPSPEED = ("zero2", "zero3")
GLOBAL_BATCH = 16
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 48,
    "patch_size": 8,
    "max_position_embeddings": 12,
}
RECIPE = {
    "config": json.dumps(TINY),
    "train_scenes": "8",
    "eval_scenes": "4",
    "unknown_answers": "ignore",
    "teacher_training": '{"max_steps": 3}',
    "layers": ["0", "1"],
    "prune_ratio": "0.2",
    "image_merge_ratio": "0.3",
    "text_merge_ratio": "0.2",
    "alpha": "10",  # makes the distillation loss count
    "max_steps": "6",
    "logging_steps": "1",
    "benchmark_seconds": "0.1",
    "report_to": "none",
}


def losses(output_dir: Path, num_processes: int, launch: list[str], recipe: list[str]) -> list[float]:
    """Launch a run, and return the task and distillation loss of each step of the student."""
    flags = {
        **RECIPE,
        "output_dir": str(output_dir),
        "per_device_train_batch_size": str(GLOBAL_BATCH // num_processes),
    }
    words = [sys.executable, "-m", "accelerate.commands.launch", *launch, str(FOLDER.parent / "train_vqa.py"), *recipe]
    for name, value in flags.items():
        words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}\nended with status {process.returncode}:\n{process.stderr[-4000:]}")
    state = json.loads((output_dir / "student" / "trainer_state.json").read_text(encoding="utf-8"))
    steps = [entry for entry in state["log_history"] if "loss" in entry]
    return [entry[name] for entry in steps for name in ("task_loss", "distillation_loss")]


def saved(output_dir: Path) -> dict[str, str]:
    """Return the content of the student's folder: the names of its files, and its weights with shape and dtype."""
    student = output_dir / "student"
    content = {path.name: "" for path in student.iterdir() if path.is_file()}
    with safe_open(student / "model.safetensors", framework="pt") as weights:
        tensors = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118, not a dict
    return content | {name: f"{tensor.get_dtype()} {tensor.get_shape()}" for name, tensor in tensors.items()}


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags. Set the configs and `cpu` for this machine, and print what is left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, help="default: all that run here (on CPUs, not fsdp)")
    parser.add_argument("--num_processes", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="CPU processes instead of GPUs; default without a GPU")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference of a loss")
    args = parser.parse_args(arguments)
    if args.num_processes < 1 or GLOBAL_BATCH % args.num_processes:
        parser.error(f"--num_processes {args.num_processes}: must divide the global batch of {GLOBAL_BATCH}")
    gpus = torch.cuda.device_count()
    if not args.cpu and not gpus:
        args.cpu = True
        print("There is no GPU here: the processes run on the CPU.")
    if not args.cpu and gpus < args.num_processes:
        parser.error(f"--num_processes {args.num_processes}: there are {gpus} GPUs; give fewer processes, or --cpu")
    missing = [] if is_deepspeed_available() else DEEPSPEED
    if args.configs is None:
        args.configs = [name for name in CONFIGS if name not in missing and not (args.cpu and name == "fsdp")]
        if missing:
            print(f"Left out: {', '.join(missing)}, as DeepSpeed is not installed (pip install deepspeed).")
    elif unknown := [name for name in args.configs if name in missing]:
        parser.error(f"--configs {' '.join(unknown)}: DeepSpeed is not installed: pip install deepspeed")
    return args


def main() -> None:
    """Train with one process, then under each config. The exit status is 1 if a config differs."""
    args = parsed()
    recipe = ["--use_cpu", "true"] if args.cpu else []
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        single = FOLDER / ("cpu.yaml" if args.cpu else "single_gpu.yaml")
        launch = ["--config_file", str(single), "--mixed_precision", "no"]
        expected = losses(Path(folder) / "single", 1, launch, recipe)
        print("one process:", *(f"{value:.6f}" for value in expected), flush=True)
        for name in args.configs:
            config = FOLDER / f"{name}_4xa100.yaml"
            launch = ["--config_file", str(config), "--num_processes", str(args.num_processes)]
            launch += ["--mixed_precision", "no", "--main_process_port", "0"]
            found = losses(Path(folder) / name, args.num_processes, launch, recipe)
            difference = max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(found, expected, strict=True))
            print(f"{name}, {args.num_processes} processes: largest relative difference {difference:.1e}", flush=True)
            if difference > args.tolerance:
                wrong.append(name)
            unlike = saved(Path(folder) / "single").items() ^ saved(Path(folder) / name).items()
            if unlike:
                raise SystemExit(f"{name} saves another folder than one process: {sorted(dict(unlike))}")
    if wrong:
        raise SystemExit(f"these train differently from one process: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
