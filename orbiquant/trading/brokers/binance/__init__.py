"""Binance spot behind the port of every broker: what it says on the wire, and what that means for an order."""
