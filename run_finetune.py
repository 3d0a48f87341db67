"""See `python run_finetune.py --help`."""

import sys

from bert_emd_jax.commands.finetune import main

if __name__ == "__main__":
    sys.exit(main())
