"""Measured claims: `python -m benchmarks.NAME` compares this project with a peer in one run."""
