#!/usr/bin/env bash
# The GPU programme: what half an hour on a GPU should tell, most valuable part first.
#
#     experiments/benchmarks/on_gpu.sh [--tiny] [--output=FOLDER] [--data=CIFAR10.npz] [--limit=SECONDS] [PART...]
#
# Without PART all parts run in the order below. Each part writes FOLDER/PART/table.csv as it goes, log.txt, and
# summary.txt (a line for each program); FOLDER is experiments/benchmarks/gpu by default. A part that is cut off, by
# --limit (default 540 seconds) or otherwise, keeps its rows, and the same command measures only what is missing.
# --tiny runs all of it with small sizes on a CPU, in about two minutes: to see that it works, not how fast it is.
set -eu
cd "$(dirname "$0")/../.."

PARTS=(throughput layers profile grid deterministic large throughput_tf32 compile)
declare -A MINUTES=([throughput]=5 [layers]=8 [profile]=2 [grid]=8 [deterministic]=4 [large]=6 [throughput_tf32]=5 [compile]=6)
declare -A ABOUT=(
    [throughput]="baseline, medium, complex in bfloat16, 1 to 64 members, beside PyTorch"
    [layers]="every convolution of six networks by every method, 1, 8 and 32 members"
    [profile]="the slowest program of the first part, and improved: where a step's time goes"
    [grid]="configs/grid.py with five seeds, from the command to the report"
    [deterministic]="the price of deterministic operations, 1 and 32 members"
    [large]="improved, cnn_final and base beside PyTorch"
    [throughput_tf32]="the first part in tf32"
    [compile]="compile times of configs/grid.py's programs, one after another and all at once"
)

output=experiments/benchmarks/gpu data="" limit=540 tiny=""
wanted=()
for argument in "$@"; do
    case "$argument" in
        --tiny) tiny=yes ;;
        --output=*) output=${argument#*=} ;;
        --data=*) data=${argument#*=} ;;
        --limit=*) limit=${argument#*=} ;;
        *)
            if [[ -z ${MINUTES[$argument]:-} ]]; then
                echo "error: part $argument does not exist; use ${PARTS[*]}" >&2
                exit 2
            fi
            wanted+=("$argument")
            ;;
    esac
done
if [[ ${#wanted[@]} == 0 ]]; then wanted=("${PARTS[@]}"); fi

bench() { # MODULE FLAG...
    local module=$1
    shift
    python3 -m "experiments.benchmarks.$module" --resume "$@"
}

throughput() { # FOLDER PRECISION FLAG...
    local given=(--precision="$2" --output="$1/table.csv" "${@:3}")
    if [[ $tiny ]]; then
        bench throughput --models=dense --batch_sizes=8 --populations=1,2 --rounds=1 --seconds=.05 \
            --start_at_once=2 "${given[@]}"
    else
        bench throughput --models=medium,complex,baseline --batch_sizes=64 --populations=1,8,32,64 --seconds=1 \
            --start_at_once=4 "${given[@]}"
    fi
}

part() { # PART FOLDER
    local table=$2/table.csv
    case "$1" in
        throughput) throughput "$2" bfloat16 ;;
        throughput_tf32)
            if [[ $tiny ]]; then # a CPU has no tf32
                throughput "$2" float32 --contenders=cnnjax --populations=1
            else
                throughput "$2" tf32
            fi
            ;;
        layers)
            if [[ $tiny ]]; then
                bench convolutions --models=baseline --populations=1,2 --batch_size=2 --image_size=8 --rounds=1 \
                    --precision=bfloat16 --output="$table"
            else
                bench convolutions --models=medium,complex,baseline,improved,cnn_final,base --populations=1,8,32 \
                    --rounds=3 --precision=bfloat16 --output="$table"
            fi
            ;;
        profile)
            # Kernels of a command buffer do not say which operation they belong to.
            export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer="
            local before=()
            if [[ -s $output/throughput/table.csv ]]; then before=(--throughput="$output/throughput/table.csv"); fi
            if [[ $tiny ]]; then
                bench step "${before[@]}" --models=dense --batch_size=8 --members=2 --steps=2 --show=10 --output="$table"
            else
                bench step "${before[@]}" --models=improved --batch_size=16 --members=9 --precision=tf32 --steps=20 \
                    --show=10 --output="$table"
            fi
            ;;
        grid)
            if [[ -s $table ]]; then return; fi
            local given=(--rounds=0 --precision=bfloat16 --output="$table")
            if [[ $data ]]; then given+=(--data="$data"); fi
            if [[ $tiny ]]; then
                TFDS_DATA_DIR=$2 bench sweep --config=configs/grid.py:smoke --models=dense --seeds=1 --examples=200 \
                    "${given[@]}" # on made-up images, as no data lie there
            else
                bench sweep --models=baseline,medium,complex --seeds=5 "${given[@]}"
            fi
            ;;
        deterministic)
            local given=(--contenders=cnnjax,deterministic --precision=bfloat16 --output="$table")
            if [[ $tiny ]]; then
                bench throughput --models=dense --batch_sizes=8 --populations=2 --rounds=1 --seconds=.05 \
                    --start_at_once=2 "${given[@]}"
            else
                bench throughput --models=medium,complex,baseline --batch_sizes=64 --populations=1,32 --seconds=1 \
                    --start_at_once=4 "${given[@]}"
            fi
            ;;
        large)
            local given=(--contenders=cnnjax,pytorch --output="$table")
            if [[ $tiny ]]; then
                bench throughput --models=dense --batch_sizes=8 --populations=1 --rounds=1 --seconds=.05 \
                    --precision=bfloat16 --start_at_once=2 "${given[@]}"
            else
                bench throughput --models=improved,cnn_final,base --batch_sizes=64 --populations=1,8 --rounds=3 \
                    --seconds=1 --precision=bfloat16 --precision=tf32 --start_at_once=3 "${given[@]}"
            fi
            ;;
        compile)
            if [[ $tiny ]]; then
                bench compile --config=configs/grid.py:smoke --models=dense --seeds=1 --output="$table"
            else
                bench compile --precision=bfloat16 --output="$table"
            fi
            ;;
    esac
}

echo "machine: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo no GPU),"\
    "$(nproc) cores; $(python3 -c '
import importlib.metadata as m
print(", ".join(f"{name} {m.version(name)}" for name in ("jax", "jaxlib", "torch", "numpy")))')"
for name in "${wanted[@]}"; do
    if [[ $tiny ]]; then echo "part $name: ${ABOUT[$name]}"; else echo "part $name, about ${MINUTES[$name]} min: ${ABOUT[$name]}"; fi
done

export PYTHONUNBUFFERED=1 output data tiny
export -f bench throughput part
failed=()
for name in "${wanted[@]}"; do
    folder=$output/$name
    mkdir -p "$folder"
    echo "== $name, $(date +%T)"
    started=$SECONDS status=0
    timeout --signal=INT --kill-after=20 "$limit" bash -eu -c 'part "$@" 2>&1 | tee -ia "$2/log.txt"; exit "${PIPESTATUS[0]}"' \
        part "$name" "$folder" || status=$?
    if [[ $status != 0 ]]; then failed+=("$name"); fi
    if [[ -s $folder/table.csv ]]; then
        python3 -m experiments.benchmarks.gpu_summary "$name" "$folder/table.csv" | tee "$folder/summary.txt"
    fi
    echo "== $name ended after $((SECONDS - started)) s with exit status $status"
done
if [[ ${#failed[@]} != 0 ]]; then
    echo "error: not whole: ${failed[*]} (the same command goes on; log.txt says why)" >&2
    exit 1
fi
