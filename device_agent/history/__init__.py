"""Answers about the history: rows of a time span as JSON, CSV or a picture, made in a child process."""
