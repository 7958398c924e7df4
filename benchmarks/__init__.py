"""What is measured and how, beside peers. `python -m benchmarks` runs all and prints one table."""
