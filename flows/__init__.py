"""What stands around the core: commands, Prefect flows, use cases, the workspace, adapters."""
