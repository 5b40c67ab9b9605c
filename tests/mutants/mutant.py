"""What is taken out, where, and which test must fail then."""

import ast
from dataclasses import dataclass
from functools import lru_cache

from tests.mutants.syntax import NotThere, replaced


@dataclass(frozen=True)
class Mutant:
    """`where`: FILE, or FILE::NAME for a function, class or method in it. The piece of syntax
    `takes` in it becomes `puts` (tests.mutants.syntax); then `fails`, as FILE::EXPRESSION of
    pytest's -k, must fail."""

    name: str
    where: str
    takes: str
    puts: str
    fails: str

    @property
    def file(self) -> str:
        """The file that it changes, from the root."""
        return self.where.partition("::")[0]

    def applied(self, source: str) -> str:
        """The file with the protection taken out. Raises NotThere where it is not there, or does
        not change."""
        return replaced(source, self.where.partition("::")[2], self.takes, self.puts)

    def check(self, source: str) -> None:
        """That another program is left, which can be read: else its test fails whatever it tests.
        Raises NotThere, SyntaxError, and ValueError for a program that is the same."""
        left = self.applied(source)
        ast.parse(left)
        if left == _as_written(source):
            raise ValueError(f"{self.name}: expected another program, got the same")


@lru_cache(maxsize=1)
def _as_written(source: str) -> str:
    """A file as `applied` writes it where nothing is taken out."""
    return ast.unparse(ast.parse(source)) + "\n"


@dataclass(frozen=True)
class TextMutant(Mutant):
    """Of a file, or a template within one, that has no syntax of Python's: the text `takes`, where
    it first stands, becomes `puts`."""

    def applied(self, source: str) -> str:
        """As for a mutant of syntax."""
        if self.takes not in source:
            raise NotThere(f"{self.name}: expected {self.takes!r} in {self.file}, got none")
        return source.replace(self.takes, self.puts, 1)

    def check(self, source: str) -> None:
        """As for a mutant of syntax."""
        left = self.applied(source)
        if left == source:
            raise ValueError(f"{self.name}: expected another text, got the same")
        if self.file.endswith(".py"):
            ast.parse(left)
