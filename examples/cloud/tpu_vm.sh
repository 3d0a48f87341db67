#!/usr/bin/env bash
# From nothing to a result on Cloud TPUs, and back to nothing:
#
#   ZONE=us-west4-a SOURCE=dist/bert_emd_jax-0.2.0-py3-none-any.whl examples/cloud/tpu_vm.sh \
#     distill --distributed --teacher_model gs://bucket/teacher --student_init_layers 1,3,5,7,9,11 \
#     --data_dir gs://bucket/MNLI --task_name mnli --output_dir gs://bucket/student
#
# ZONE      where (required)
# SOURCE    what pip installs: a wheel, git+https://…, or a name on PyPI (required)
# TYPE      chips, v5litepod-8 unless said otherwise: one host; v5litepod-16 and more: a pod slice of several
# RUNTIME   goes with the chips: v2-alpha-tpuv5-lite, v6e: v2-alpha-tpuv6e, v5p: v2-alpha-tpuv5, v4: tpu-ubuntu2204-base
# TIER      --spot (cheaper, may vanish), --guaranteed or empty
# NAME      of what is created; PROJECT
# KEEP=yes  do not delete it at the end;  ATTEMPTS=50  starts before giving up
set -euo pipefail
: "${ZONE:?say where: ZONE=us-west4-a}"
: "${SOURCE:?say what is installed: SOURCE=a wheel, git+https://… or a name on PyPI}"
NAME=${NAME:-bert-emd}
TYPE=${TYPE:-v5litepod-8}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
TIER=${TIER---spot}
where=(--zone "$ZONE" --quiet)
if [ -n "${PROJECT:-}" ]; then
  where+=(--project "$PROJECT")
fi

state() {
  gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" --format 'value(state.state)' 2>/dev/null
}

is_there() { [ "$(state)" = ACTIVE ]; }

create() {
  gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" "${where[@]}" \
    --accelerator-type "$TYPE" --runtime-version "$RUNTIME" ${TIER:+"$TIER"} \
    --scopes https://www.googleapis.com/auth/cloud-platform || return
  until is_there; do
    case $(state) in
      FAILED | SUSPENDING | SUSPENDED)
        say "the request ended as $(state)"
        return 1
        ;;
    esac
    sleep "${PAUSE:-10}"
  done
}

on_all() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=all --command "$1"
}

copy_to_all() {
  gcloud compute tpus tpu-vm scp "$1" "$NAME:" "${where[@]}" --worker=all
}

delete() {
  if [ -n "$(state)" ]; then
    say "deleting $NAME"
    gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force
  fi
}

# shellcheck source=examples/cloud/until_done.sh
source "$(dirname "${BASH_SOURCE[0]}")/until_done.sh"
until_done tpu,gcs "$@"
