#!/usr/bin/env bash
# From nothing to a result on a GPU VM of Compute Engine, and back to nothing:
#
#   ZONE=us-central1-a SOURCE=dist/bert_emd_jax-0.2.0-py3-none-any.whl examples/cloud/gpu_vm.sh \
#     distill --teacher_model gs://bucket/teacher --student_init_layers 1,3,5,7,9,11 \
#     --data_dir gs://bucket/MNLI --task_name mnli --output_dir gs://bucket/student
#
# ZONE      where (required)
# SOURCE    what pip installs: a wheel, git+https://…, or a name on PyPI (required)
# TYPE      machine, g2-standard-8 (one L4) unless said otherwise; a2-highgpu-1g: one A100, a3-highgpu-1g: one H100
# IMAGE     family of images with NVIDIA's driver, and IMAGE_PROJECT
# TIER      SPOT (may vanish) or STANDARD
# NAME      of what is created; PROJECT
# KEEP=yes  do not delete it at the end;  ATTEMPTS=50  starts before giving up
set -euo pipefail
: "${ZONE:?say where: ZONE=us-central1-a}"
: "${SOURCE:?say what is installed: SOURCE=a wheel, git+https://… or a name on PyPI}"
NAME=${NAME:-bert-emd}
TYPE=${TYPE:-g2-standard-8}
IMAGE=${IMAGE:-common-cu128-ubuntu-2204-nvidia-570}
IMAGE_PROJECT=${IMAGE_PROJECT:-deeplearning-platform-release}
TIER=${TIER:-SPOT}
where=(--zone "$ZONE" --quiet)
if [ -n "${PROJECT:-}" ]; then
  where+=(--project "$PROJECT")
fi

state() {
  gcloud compute instances describe "$NAME" "${where[@]}" --format 'value(status)' 2>/dev/null
}

is_there() { [ "$(state)" = RUNNING ]; }

create() {
  local spot=()
  if [ "$TIER" = SPOT ]; then
    spot=(--instance-termination-action DELETE)
  fi
  gcloud compute instances create "$NAME" "${where[@]}" --machine-type "$TYPE" \
    --provisioning-model "$TIER" "${spot[@]}" --maintenance-policy TERMINATE \
    --image-family "$IMAGE" --image-project "$IMAGE_PROJECT" --boot-disk-size 100GB \
    --scopes https://www.googleapis.com/auth/cloud-platform || return
  # It takes a minute or two until it can be reached and has its driver.
  until on_all nvidia-smi >/dev/null 2>&1; do
    is_there || return
    sleep "${PAUSE:-10}"
  done
}

on_all() {
  gcloud compute ssh "$NAME" "${where[@]}" --command "$1"
}

copy_to_all() {
  gcloud compute scp "$1" "$NAME:" "${where[@]}"
}

delete() {
  if [ -n "$(state)" ]; then
    say "deleting $NAME"
    gcloud compute instances delete "$NAME" "${where[@]}"
  fi
}

# shellcheck source=examples/cloud/until_done.sh
source "$(dirname "${BASH_SOURCE[0]}")/until_done.sh"
until_done cuda,gcs "$@"
