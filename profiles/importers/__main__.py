"""Write all bundled profiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from brigade.policies.profile import dump_profile, file_name, parse_profile
from profiles.importers import aiconfigurator, distserve, splitwise
from profiles.importers.document import Document

FOLDER = Path(__file__).parents[1]


def all_documents(folder: Path) -> Iterator[Document]:
    """Yield every profile that the source files in `folder` give."""
    for importer in (distserve, aiconfigurator, splitwise):
        yield from importer.documents(folder)


def main() -> None:
    for document in all_documents(FOLDER / "source"):
        name = str(document["name"])
        parse_profile(document, where=name)
        (FOLDER / file_name(name)).write_text(dump_profile(document), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
