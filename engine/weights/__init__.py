"""From a folder of weights to a model: where it is found, read, and what it needs beside it."""
