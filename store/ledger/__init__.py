"""The ledger: what must hold at any moment, whatever crashed, and the evidence for it."""
