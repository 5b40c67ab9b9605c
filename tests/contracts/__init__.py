"""What each port promises, asked of its fake and of the adapter that users have."""
