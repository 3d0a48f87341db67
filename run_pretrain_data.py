"""Makes pretraining examples from a text corpus."""

from bert_emd_jax.commands.pretrain_data import main

if __name__ == "__main__":
    raise SystemExit(main())
