"""The use cases as Prefect flows, their steps as tasks, and the deployments of them."""
