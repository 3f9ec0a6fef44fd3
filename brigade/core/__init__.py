"""What every part shares: requests, messages, the step contract, the KV block ledger, config, errors. Standard library only."""
