"""The public record of what was checked, when, on what, and what came of it."""
