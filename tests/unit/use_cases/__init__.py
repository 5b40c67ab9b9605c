"""What commands, flows and doors call."""
