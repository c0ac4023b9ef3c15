"""Bugs that are planted in a copy of the shop, one at a time, and who of its checks catches them."""
