"""What must follow an edit: where, with what, and whether the model finds it likelier."""
