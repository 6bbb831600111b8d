#!/bin/bash
# sbatch recipes/accelerate/slurm_2x8xa100.sh recipes/train_vqa.py recipes/vilt/vqav2/pumer.yaml [--flags]
#SBATCH --job-name=pumer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
set -euo pipefail
main_address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export main_address
# One launcher per machine; each finds its own rank in SLURM_NODEID. --resume continues a run that was preempted.
srun bash -c 'accelerate launch \
  --config_file recipes/accelerate/ddp_2x8xa100.yaml \
  --main_process_ip "$main_address" --main_process_port 29500 \
  --machine_rank "$SLURM_NODEID" "$@"' launch "$@"
