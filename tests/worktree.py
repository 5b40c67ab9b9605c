"""A workspace as somebody has it who works in several branches at a time (git-worktree(1))."""

from pathlib import Path


def as_worktree(root: Path, home: Path) -> Path:
    """Make what is in `root` a second worktree of the repository, which from now on lies in
    `home`."""
    (root / ".git").rename(home)
    own = home / "worktrees" / "w"
    own.mkdir(parents=True)
    for folder in (home, own.parent, own):
        folder.chmod(0o755)
    (own / "commondir").write_text("../..\n")
    (own / "gitdir").write_text(f"{root / '.git'}\n")
    (own / "HEAD").write_bytes((home / "HEAD").read_bytes())
    (root / ".git").write_text(f"gitdir: {own}\n")
    return root
