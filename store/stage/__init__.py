"""The presenter's tools, and the naive twin that they are compared with."""
