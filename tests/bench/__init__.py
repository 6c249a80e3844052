"""Benchmarks: each compares with a floor or a peer in the same interleaved run and prints ratios. They gate nothing."""
