"""See `python run_eval.py --help`."""

import sys

from bert_emd_jax.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
