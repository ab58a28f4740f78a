"""What of this document and of others the engine gets to see."""
