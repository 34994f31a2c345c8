"""Long commands that end at random moments leave nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path

from kills import kill_at_random

SCALE = float(os.environ.get("ONNX_LOWRANK_TRUST_SCALE", "1"))


def test_kills_at_random_moments_do_no_harm(tmp_path: Path) -> None:
    kills = max(int(16 * SCALE), 8)
    counts = kill_at_random(kills, 0, tmp_path / "base")
    print(*(f"{count:5} {what}" for what, count in sorted(counts.items())), sep="\n")
    assert sum(n for what, n in counts.items() if what.startswith("SIG")) == kills
