"""Shoppers, kills and faults let loose on a shop, and the verdict."""
