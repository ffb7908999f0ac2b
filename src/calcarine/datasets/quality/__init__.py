"""What is there, how good it is, and what that allows."""
