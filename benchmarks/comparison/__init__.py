"""The parts of `benchmarks/study.py`: what is compared, how it is run, and what the numbers say."""
