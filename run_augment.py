"""Writes augmented training rows, in which words are replaced by likely others."""

from bert_emd_jax.commands.augment import main

if __name__ == "__main__":
    raise SystemExit(main())
