"""Words in, records out. No mathematics."""
