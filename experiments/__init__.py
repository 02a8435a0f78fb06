"""What came out of the studies, and the benchmarks."""
