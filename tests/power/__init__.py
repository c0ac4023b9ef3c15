"""Power cuts: what a disk may have kept of a shop's files, and what the shop makes of it."""
