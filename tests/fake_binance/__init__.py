"""A spot venue that speaks as Binance does in 2026, for tests: a program of its own that imports nothing of ours."""
