"""What can be set, what each source says, and what holds for a document."""
