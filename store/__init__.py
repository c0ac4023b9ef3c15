"""The Widget Store: one room for each concern; `ls store` is the table of contents."""
