"""DBOS: how it is launched, how a change becomes a durable step, and how long a request waits for either."""
