"""Long commands that end at random moments leave nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path

from counts import Record
from kills import kill_at_random

SCALE = float(os.environ.get("ONNX_LOWRANK_TRUST_SCALE", "1"))


def test_kills_at_random_moments_do_no_harm(trust_record: Record, tmp_path: Path) -> None:
    kills = max(int(16 * SCALE), 8)
    counts = kill_at_random(kills, 0, tmp_path / "base")
    trust_record("kills at random moments", {"tried": kills, **dict(sorted(counts.items()))})
    assert sum(n for what, n in counts.items() if what.startswith("SIG")) == kills
