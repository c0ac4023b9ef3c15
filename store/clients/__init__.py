"""How the store speaks to other people's systems."""
