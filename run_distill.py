"""See `python run_distill.py --help`."""

import sys

from bert_emd_jax.commands.distill import main

if __name__ == "__main__":
    sys.exit(main())
