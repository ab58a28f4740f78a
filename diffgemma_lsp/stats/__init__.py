"""What suggestions are worth: how many were shown, accepted and kept. Only numbers, only here."""
