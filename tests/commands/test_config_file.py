"""--config FILE: flags from YAML, JSON, or an earlier run; and the list of what there is to choose from."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_emd_jax.commands import bert_emd, distill, list_choices
from bert_emd_jax.commands.config_file import names_flag, with_file_flags
from bert_emd_jax.commands.flags import parse_flags
from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.presets import with_preset_flags
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.families import FAMILIES
from bert_emd_jax.transport.mappings import MAPPINGS

VALUES: dict[str, Any] = {
    "teacher_model": "teacher",
    "student-init-layers": [1, 3],
    "data_dir": "data",
    "task_name": "mrpc",
    "output_dir": "student",
    "learning_rate": 1e-5,
    "use_attention": False,
    "overwrite": True,
    "resume": False,
    "mirror_dir": None,
    "beta": 0.5,
}
FLAGS = (
    "--teacher_model teacher --student_init_layers 1,3 --data_dir data --task_name mrpc --output_dir student"
)
FLAGS += " --learning_rate 1e-5 --no_use_attention --overwrite --beta 0.5"


def parsed(*args: str) -> DistillConfig:
    args = tuple(with_preset_flags(with_file_flags(DistillConfig, args)))
    return parse_flags(DistillConfig, list(args), "run_distill.py", "")


@pytest.mark.parametrize("form", ["yaml", "json", "run_config"])
def test_a_file_is_its_flags(tmp_path: Path, form: str):
    path = tmp_path / f"flags.{'yaml' if form == 'yaml' else 'json'}"
    if form == "yaml":
        lines = [f"{name}: {json.dumps(value)}" for name, value in VALUES.items() if name != "learning_rate"]
        path.write_text("# mine\n" + "\n".join([*lines, "learning_rate: 1e-5"]))
    else:
        path.write_text(json.dumps(VALUES if form == "json" else {"flags": VALUES, "program": "run_distill"}))
    assert parsed("--config", str(path)) == parsed(*FLAGS.split())
    # What stands beside it wins, wherever it stands.
    for args in (("--beta", "2", f"--config={path}"), ("--config", str(path), "--beta=2")):
        assert parsed(*args) == parsed(*FLAGS.split(), "--beta", "2")
    assert names_flag(["--config", str(path)], "task_name")
    assert not names_flag(["--config", str(path)], "pregenerated_data")
    path.write_text(json.dumps({**VALUES, "preset": "bert_emd_4"}))
    assert parsed("--config", str(path)) == parsed("--preset", "bert_emd_4", *FLAGS.split())


def test_the_line_turns_off_what_a_file_turns_on(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("remat: true\nuse_hidden: false\n")
    line = [*FLAGS.split(), "--config", str(path)]
    assert parsed(*line).flags()["remat"] is True
    for word in ("--no_remat", "--no-remat"):
        flags = parsed(*line, word, "--use_hidden").flags()
        assert (flags["remat"], flags["use_hidden"]) == (False, True)


def test_paths_of_a_run_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here" / "teacher").mkdir(parents=True)
    (tmp_path / "here" / "run").mkdir()
    (tmp_path / "here" / "mrpc").mkdir()  # a directory with the name of the task, which is no path
    flags = VALUES | {"teacher_model": ["teacher", "org/model"], "output_dir": "new", "data_dir": "/data"}
    run = {"flags": flags, "working_directory": str(tmp_path / "here")}
    (tmp_path / "here" / "run" / "run_config.json").write_text(json.dumps(run))
    monkeypatch.chdir(tmp_path)
    config = parsed("--config", "here/run/run_config.json").flags()
    assert config["teacher_model"] == (tmp_path / "here" / "teacher", Path("org/model"))
    assert (config["output_dir"], config["data_dir"]) == (Path("new"), Path("/data"))
    assert config["task_name"] == "mrpc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"--config .*: cannot be read \(.*No such file"),
        ("- 1\n- 2\n", "one flag a line is wanted"),
        ("just text", "one flag a line is wanted"),
        ("a: [1", "cannot be read"),
        ("learning_rat: 1", "learning_rat: no such flag; did you mean learning_rate"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, content: Any, message: str, capsys):
    path = tmp_path / "flags.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        with_file_flags(DistillConfig, ["--config", str(path)])
    assert distill.main(["--config", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert distill.main(["--config", "--beta", "1"]) == 2
    assert "--config: needs a file" in capsys.readouterr().err


def test_what_there_is_to_choose_from(capsys):
    assert bert_emd.main(["list"]) == 0
    everything = capsys.readouterr().out
    assert all(f"{what} (" in everything for what in list_choices.CHOICES)
    for what, names in (("mappings", MAPPINGS), ("kinds", KINDS), ("families", FAMILIES)):
        assert list_choices.main([what]) == 0
        lines = capsys.readouterr().out.strip().splitlines()[1:]
        assert [line.split()[0] for line in lines] == list(names)
        assert all(len(line.split()) > 1 for line in lines)
