"""Every read of the shop's tables and of DBOS's checkpoints; a read is never a workflow step."""
