"""Keys and values: the prefix cache, trees of continuations, who sees whom."""
