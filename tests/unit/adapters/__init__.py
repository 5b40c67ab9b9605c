"""What touches the outside, as far as it needs nothing outside."""
