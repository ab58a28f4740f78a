"""What of the engine's answer is shown, and why nothing is."""
