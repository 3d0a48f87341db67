# Sourced by the scripts beside it, which define, for the kind of machine that they rent:
#   create          asks for the machines, and returns when they are there; fails if they are refused
#   is_there        succeeds while they are
#   on_all COMMAND  runs a command line on every host, shows what they say, fails if one fails
#   copy_to_all FILE
#   delete          gives them back; succeeds, too, if there are none
# until_done EXTRAS ARGUMENT… then rents them, runs `bert-emd ARGUMENT… --resume` on all hosts until it is finished,
# and gives them back. A process that dies is started again; machines that vanish are rented again, and the run goes on
# from its copy in the bucket.
# shellcheck shell=bash

say() { echo "$(date +%H:%M:%S) $*" >&2; }

# pip's name of the package in $SOURCE, with extras; a file on this disk is copied to the hosts.
install() {
  local requirement
  if [ -f "$SOURCE" ]; then
    copy_to_all "$SOURCE"
    requirement="$(basename "$SOURCE")[$1]"
  elif [[ $SOURCE == *://* ]]; then
    requirement="bert_emd_jax[$1] @ $SOURCE"
  else
    requirement="${SOURCE}[$1]"
  fi
  on_all "export PATH=\"\$HOME/.local/bin:\$PATH\"
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    uv venv --quiet --allow-existing --python 3.12 ~/bert_emd
    uv pip install --quiet --python ~/bert_emd/bin/python '$requirement'"
}

until_done() {
  local extras=$1 installed=no mistakes=0 attempt command log
  shift
  # What a broken connection may have left running holds the devices.
  command="pkill -KILL -x bert-emd; ~/bert_emd/bin/bert-emd $(printf '%q ' "$@" --resume)"
  log=$(mktemp)
  if [ "${KEEP:-no}" = no ]; then
    trap delete EXIT
  fi
  for ((attempt = 1; attempt <= ${ATTEMPTS:-50}; attempt++)); do
    if [ "$attempt" -gt 1 ]; then
      sleep "${PAUSE:-10}"
    fi
    if ! is_there; then
      delete
      say "asking for $TYPE"
      create || continue
      installed=no
    fi
    if [ $installed = no ]; then
      say "installing $SOURCE"
      install "$extras" || continue
      installed=yes
    fi
    say "start $attempt: bert-emd $*"
    if on_all "$command" 2>&1 | tee "$log"; then
      say "finished"
      return 0
    fi
    # A bucket that cannot be reached is such a line, too, and may be there in a minute; a wrong flag stays wrong.
    if grep -qE 'bert-emd [a-z-]+: error: ' "$log" && [ $((++mistakes)) -ge 3 ]; then
      say "given up: that error comes every time"
      return 2
    fi
  done
  say "given up after $((attempt - 1)) starts"
  return 1
}
