"""`s3t serve`: the schedules on one machine, and what watches over them."""
