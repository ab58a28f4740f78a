"""Training of the embedded model: corpus, tokenizer, batches, steps."""
