"""BERT-EMD in JAX: BERT compression with an optimal-transport layer mapping (arXiv 2010.06133)."""

__version__ = "0.1.0"
