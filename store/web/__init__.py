"""Routes, pages and JSON, and what every request shares."""
