"""What runs on schedule, and what watches it."""
