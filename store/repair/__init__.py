"""Work that will not end by itself: how it is found, shown to an operator, and run again."""
