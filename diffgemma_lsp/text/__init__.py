"""The text of documents, as it is and as it was; knows nothing of LSP."""
