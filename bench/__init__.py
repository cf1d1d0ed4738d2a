"""Benchmarks: each compares the product with something else in one run, so that ratios mean something anywhere."""
