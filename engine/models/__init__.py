"""What is known of each model family: how to prompt it, how to sample it, what it can do."""
