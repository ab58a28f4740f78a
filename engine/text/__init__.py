"""Text to tokens and back: the tokenizer, the prompt, a template laid out as a canvas."""
