"""Several answers to a hole, and which of them is best."""
