"""``trimem sync``."""

from __future__ import annotations

from pathlib import Path

from tests.commands import here, json_of, trimem
from tests.contracts.bank import CAKE, PUMP


def test_sync_follows_a_folder(docs: Path, bank: str, model: str) -> None:
    assert "no folder" in trimem("sync", str(docs / "absent"), *here(bank), code=1).stderr
    assert not Path(bank).exists()
    said = trimem("sync", str(docs), *here(bank), "--model", model)
    assert "under acme/hr: 2 added, 0 changed, 0 removed, 0 unchanged" in said.stdout
    assert "picture.png is a binary file" in said.stderr
    (docs / "boat.txt").write_text(CAKE)
    (docs / "pump.md").unlink()
    (docs / "latin.md").write_bytes(b"caf\xe9")
    (docs / "long.txt").write_text(f"{PUMP} " * 30)
    report = json_of("sync", str(docs), *here(bank), "--max-mb", "0.001", code=1)  # finds its model by itself
    names = {key: [Path(name).name for name in report[key]] for key in ("added", "changed", "removed", "unchanged")}
    assert names == {"added": [], "changed": ["boat.txt"], "removed": ["pump.md"], "unchanged": []}
    errors = {Path(file["source"]).name: (file["error"], file["unexpected"]) for file in report["skipped"]}
    assert errors == {
        "latin.md": ("UnreadableFileError", True),
        "long.txt": ("FileTooLargeError", True),
        "picture.png": ("UnreadableFileError", False),
    }
    assert [hit["text"] for hit in json_of("recall", "boat", *here(bank))] == [CAKE]
    assert "no folder" in trimem("sync", str(docs / "absent"), *here(bank), code=1).stderr
    large = trimem("remember", str(docs / "long.txt"), *here(bank), "--max-mb", "0.001", code=1)
    assert "raise the limit by max_bytes (--max-mb)" in large.stderr
