"""The tables of `s3t.toml` that say where all of it is kept: a file, a directory or a server. None
holds a secret."""

from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from s3t_core.config.sections import Section


def _without_password(value: str) -> str:
    found = urlsplit(value)
    secret = any(
        word in name.casefold()
        for name, _ in parse_qsl(
            found.query,
            keep_blank_values=True,
        )
        for word in ("pass", "secret", "token", "key")
    )
    if found.password is not None or secret:
        raise ValueError(
            "expected no password in a file that git keeps, got one in the URL; give it in the "
            "environment or a file: PGPASSFILE, ~/.pgpass, PGPASSWORD; MLFLOW_TRACKING_PASSWORD"
        )
    return value


class DatabaseConfig(Section):
    """Requests, ledger and suppression list."""

    url: str = Field(
        "sqlite:///.s3t/s3t.db",
        description="sqlite:///PATH, relative to the workspace, or "
        "postgresql://USER@HOST/DATABASE; the password comes from PGPASSFILE or PGPASSWORD",
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value.startswith("postgresql://"):
            if not urlsplit(_without_password(value)).path.strip("/"):
                raise ValueError(
                    "expected postgresql://USER@HOST/DATABASE, got a URL without a database"
                )
            return value
        if not value.startswith("sqlite:///") or value == "sqlite:///":
            raise ValueError(
                "expected a URL such as 'sqlite:///.s3t/s3t.db' or "
                "'postgresql://user@host/database'"
            )
        return value


_ODD_IN_BUCKET = frozenset('#?@%\\*[]{}^`"<>|')
"""What one tool takes for the beginning of something else than a name, and another does not."""


def is_plain_bucket(url: str) -> bool:
    """Whether a URL s3://BUCKET/PREFIX, or s3://BUCKET, is the same place to whoever reads it: a
    bucket and a prefix of names, none of them empty, "." or "..", without signs that a URL gives a
    meaning."""
    names = url.removeprefix("s3://").removesuffix("/").split("/")
    return (
        url.startswith("s3://")
        and not any(name in ("", ".", "..") for name in names)
        and _ODD_IN_BUCKET.isdisjoint(url)
        and url.isprintable()
    )


def _place(value: str) -> str:
    """A directory, or s3://BUCKET/PREFIX, of which every tool that it is told to reads the same."""
    if not value.isprintable() or value != value.strip():
        raise ValueError(
            "expected a place without line breaks, tabs or blanks at its ends; name it otherwise"
        )
    if "://" in value and not value.startswith("s3://"):
        raise ValueError(
            f"expected a directory or s3://BUCKET/PREFIX, got {value.partition('://')[0]}://..."
        )
    has_prefix = "/" in value.removeprefix("s3://").removesuffix("/")
    if value.startswith("s3://") and not (has_prefix and is_plain_bucket(value)):
        raise ValueError(
            "expected s3://BUCKET/PREFIX in plain names, without keys in it, which come from the "
            "environment or from AWS's own files, without empty parts, and without # ? % and the "
            "like, which one tool reads as another place than the next"
        )
    return value


class StoreConfig(Section):
    """Stage artifacts."""

    url: str = Field(
        ".s3t/stages",
        min_length=1,
        description="of the stage artifacts: a directory or s3://BUCKET/PREFIX",
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return _place(value)


class RegistryConfig(Section):
    """Model versions and training runs (MLflow)."""

    tracking_uri: str = Field(
        "", description='address of an MLflow server; "" = a database in .s3t'
    )
    backend: str = Field(
        "", description="with a server: its database, postgresql://USER@HOST/DATABASE, for erasures"
    )
    artifacts: str = Field(
        "", description="with a server: where its artifacts are, s3://BUCKET/PREFIX or a directory"
    )

    @field_validator("tracking_uri")
    @classmethod
    def _tracking(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(
                "expected the address of an MLflow server such as http://127.0.0.1:5500"
            )
        return _without_password(value)

    @field_validator("backend")
    @classmethod
    def _backend(cls, value: str) -> str:
        if value and not value.startswith(("postgresql://", "sqlite:///")):
            raise ValueError("expected postgresql://USER@HOST/DATABASE or sqlite:///PATH")
        return _without_password(value)

    @field_validator("artifacts")
    @classmethod
    def _artifacts(cls, value: str) -> str:
        return _place(value)

    @model_validator(mode="after")
    def _whole(self) -> "RegistryConfig":
        if (
            len(
                {
                    bool(self.tracking_uri),
                    bool(self.backend),
                    bool(self.artifacts),
                }
            )
            > 1
        ):
            raise ValueError(
                "expected tracking_uri, backend and artifacts together, or none of them: an "
                "erasure must reach all three, so a server without them cannot be used"
            )
        return self


class DvcConfig(Section):
    """Where data versions are pushed."""

    remote: str = Field(
        ".s3t/remote",
        min_length=1,
        description="of the DVC remote: a directory or s3://BUCKET/PREFIX",
    )

    @field_validator("remote")
    @classmethod
    def _remote(cls, value: str) -> str:
        if "%(" in value or ("'" in value and '"' in value):
            raise ValueError(
                "expected a place without '%(' and without both kinds of quotes, which "
                "configuration of DVC cannot hold; name it otherwise"
            )
        return _place(value)
