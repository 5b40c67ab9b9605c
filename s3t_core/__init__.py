"""S3T: exact machine unlearning by deactivating adapters (ICLR 2025, arXiv 2406.16257).

The method, free of any orchestration: it never imports prefect, mlflow, dvc, great_expectations or
sqlalchemy.
"""

METHOD_VERSION = "s3t/3"
"""Part of every stage key: raised whenever the same inputs would train to other bytes."""
