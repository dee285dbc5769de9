"""History for those who ask: rows of a span as JSON, CSV or a picture, made in a process of their own."""
