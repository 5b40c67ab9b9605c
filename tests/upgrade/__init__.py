"""What an earlier build of this project wrote is gone on with by this one."""
