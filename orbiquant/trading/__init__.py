"""What moves money: ledger, risk, brokers, agents and the engine that drives them."""
