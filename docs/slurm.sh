#!/bin/bash
#SBATCH --job-name=fvgen
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#
# sbatch docs/slurm.sh TEACHER PAIRS RUN
# Two minutes before the time limit the run saves and leaves, and the job is queued again until the run is finished.
set -u
teacher=$1 pairs=$2 run=$3
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m fvgen distill viewcrafter-512 --teacher "$teacher" --data "$pairs" --output "$run" &
work=$!

again() {
    scancel --signal=TERM "$SLURM_JOB_ID.0"
    wait "$work"
    scontrol requeue "$SLURM_JOB_ID"
}
trap again TERM
wait "$work"
