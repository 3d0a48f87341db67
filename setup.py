"""Package metadata lives in pyproject.toml; this file keeps `python setup.py` tools working."""

from setuptools import setup

setup()
