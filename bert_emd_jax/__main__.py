"""`python -m bert_emd_jax` is the command `bert-emd`."""

import sys

from bert_emd_jax.commands.bert_emd import main

if __name__ == "__main__":
    sys.exit(main())
