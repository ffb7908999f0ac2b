"""Compare methods with each other and with published scores."""
