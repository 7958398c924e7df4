module keyledger/benchmarks/go_floor

go 1.21
