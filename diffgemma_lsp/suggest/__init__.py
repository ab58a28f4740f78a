"""What to suggest at a cursor."""
