"""One client's state: its requests, its engine, and what is remembered for it."""
