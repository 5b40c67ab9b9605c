"""What a command, a flow and whoever else may start something call: one module per thing that a
person wants done. None of them knows the command line or Prefect."""
