"""See `python convert_pytorch_checkpoints.py --help`."""

import sys

from bert_emd_jax.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
