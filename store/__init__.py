"""The Widget Store: a package for each layer, ordered by the contracts in pyproject.toml."""
