"""The benchmark of the store: `make bench`. Nothing in the store imports it."""
