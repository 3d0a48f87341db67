"""Nothing that reads data may load JAX: programs answer a wrong flag or a bad row at once."""

import pkgutil
import subprocess
import sys

import bert_emd_jax.data


def test_data_does_without_jax():
    names = [module.name for module in pkgutil.iter_modules(bert_emd_jax.data.__path__)]
    assert len(names) > 5
    modules = ", ".join(f"bert_emd_jax.data.{name}" for name in names)
    program = f"import sys, {modules}, bert_emd_jax.commands.pretrain_data\n"
    program += "print({'jax', 'flax'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
