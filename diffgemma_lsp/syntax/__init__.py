"""What is known of languages: brackets, indentation, whether a filling breaks the syntax."""
