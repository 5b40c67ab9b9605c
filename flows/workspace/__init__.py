"""One workspace: where it keeps what (layout), who may change it (access), what signs (signing),
that its places are its own (stores), and everything plugged in (workspace; composing for an
erasure). docs/architecture.md has the rest."""
