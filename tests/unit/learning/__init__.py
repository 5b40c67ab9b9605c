"""What trains, without training."""
