import itertools
import subprocess
import sys

import pytest

from bert_emd_jax.errors import UserError
from bert_emd_jax.transport.mappings import MAPPINGS, validate_mapping


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)


def test_names_do_not_import_jax():
    modules = "bert_emd_jax.transport.mappings, bert_emd_jax.transport.weight_rules"
    run_python(f"import sys, {modules}; assert 'jax' not in sys.modules")


def test_the_function_wins_over_its_file_in_every_import_order():
    statements = [
        "import bert_emd_jax.transport.solver",
        "import bert_emd_jax.transport.simplex",
        "from bert_emd_jax.transport.solver import Plan",
        "from bert_emd_jax.transport import sinkhorn",
        "import bert_emd_jax.transport.mappings",
    ]
    # One process: modules are forgotten between the orders, jax stays loaded.
    lines = ["import sys"]
    for first, second in itertools.permutations(statements, 2):
        lines += [
            "for name in [n for n in sys.modules if n.startswith('bert_emd_jax')]: del sys.modules[name]",
            first,
            second,
            "from bert_emd_jax.transport import network_simplex, sinkhorn",
            "assert callable(sinkhorn) and sinkhorn.__name__ == 'sinkhorn', sinkhorn",
            "assert callable(network_simplex) and network_simplex.__name__ == 'network_simplex'",
            "import bert_emd_jax.transport as package",
            "assert package.sinkhorn is sinkhorn is sys.modules['bert_emd_jax.transport.solver'].sinkhorn",
        ]
    run_python("\n".join(lines))


def test_the_package_lists_its_functions_and_refuses_others():
    import bert_emd_jax.transport as transport

    assert {"sinkhorn", "network_simplex", "hidden_cost", "attention_cost"} <= set(dir(transport))
    with pytest.raises(AttributeError, match="nothing_here"):
        transport.nothing_here  # noqa: B018


def test_only_transport_moves_layer_weights():
    assert [name for name, mapping in MAPPINGS.items() if mapping.transports] == [
        "emd",
        "emd_exact",
        "capped",
    ]


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_which_mappings_a_deeper_student_may_have(mapping):
    validate_mapping(mapping, 4, 12)
    if mapping in ("emd", "emd_exact", "capped", "last", "all_to_one", "nearest", "none"):
        validate_mapping(mapping, 12, 4)
    else:
        with pytest.raises(UserError, match="12 layers and the teacher only 4"):
            validate_mapping(mapping, 12, 4)


def test_unknown_mapping_and_empty_stack_are_refused():
    with pytest.raises(UserError, match="--mapping sideways: unknown; choose one of emd, emd_exact, capped"):
        validate_mapping("sideways", 4, 12)
    with pytest.raises(UserError, match="at least one layer"):
        validate_mapping("emd", 0, 12)
