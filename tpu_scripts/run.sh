#!/usr/bin/env bash
# Run one experiment on every worker of a TPU slice that exists.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tpu_scripts/run.sh --name NAME --zone ZONE [--project PROJECT] [--folder FOLDER] [--dry-run] EXPERIMENT [ARG ...]

Runs `isoflop run EXPERIMENT ARG ...` on every worker of the TPU slice NAME at the same time, over ssh, and leaves with
gcloud's exit code. Options come before EXPERIMENT; everything after it goes to isoflop exactly as it was typed.

  --name NAME        the TPU slice (VM)
  --zone ZONE        its zone, such as us-central2-b
  --project PROJECT  its project (default: gcloud's own)
  --folder FOLDER    the checkout on each worker, absolute or below the home folder (default: isoflop)
  --dry-run          print the command and run nothing

EXPERIMENT is a path inside the checkout. With several workers, --runs-dir must be a folder they all see and can lock.

  tpu_scripts/run.sh --name ladder --zone us-central2-b experiments/isoflop_transformer.py --runs-dir /mnt/runs

It does not create or delete the slice, copy the checkout or build its .venv, collect the runs, or outlive the
connection: when that breaks, the command stops, and the same line again goes on from the last checkpoints. Nor does it
join the workers of a slice into one jax program: each runs isoflop by itself, trains the runs that no other holds, and
waits for those of the others at the end. The tests give it a stand-in for gcloud; it has not met a real slice yet.
TEXT
}

fail() {
    echo "tpu_scripts/run.sh: $1 (--help explains)" >&2
    exit 2
}

name="" zone="" project="" folder="isoflop" dry_run=false
while [[ $# -gt 0 ]]; do
    case $1 in
        --name | --zone | --project | --folder)
            [[ $# -ge 2 && -n $2 && $2 != -* ]] || fail "$1 needs a value that is not empty and does not begin with -"
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        --dry-run) dry_run=true && shift ;;
        --help | -h) usage && exit 0 ;;
        -*) fail "unknown option $1" ;;
        *) break ;;
    esac
done
[[ -n $name ]] || fail "--name is missing"
[[ -n $zone ]] || fail "--zone is missing"
[[ $# -ge 1 && -n $1 ]] || fail "the experiment file is missing"

# Two shells read what the user typed: the workers' (quoted here, as one line of bash) and, for a command that --dry-run
# printed, the one it is pasted into (quoted below). gcloud gets an argument list and passes the line on as it is.
printf -v on_worker 'cd %q && .venv/bin/isoflop run' "$folder"
printf -v on_worker '%s%s' "$on_worker" "$(printf ' %q' "$@")"

command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone")
[[ -z $project ]] || command+=("--project=$project")
command+=(--worker=all "--command=$on_worker")

if [[ $dry_run == true ]]; then
    printf '%q ' "${command[@]}" | sed 's/ $//'
    echo
    exit 0
fi
command -v gcloud > /dev/null || fail "gcloud is not installed"
exec "${command[@]}"
