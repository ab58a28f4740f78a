"""What a user asks to have done to a document, and the edit that comes of it."""
