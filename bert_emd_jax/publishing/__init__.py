"""Handing a student on: its model card, and the Hugging Face hub."""
