"""How long the loop's thread looks for gRPC's next event: long only where that has been worth it every time of late."""

from __future__ import annotations

import pytest

from trtserve_server.transport.patience import HASTY_S, PATIENT_S, SURE, Patience

AT_ONCE, SOON, LATE = HASTY_S / 2, (HASTY_S + PATIENT_S) / 2, 2 * PATIENT_S


@pytest.mark.parametrize(
    ("gaps", "seconds"),
    [
        ([], HASTY_S),
        ([SOON] * (SURE - 1), HASTY_S),
        ([SOON] * SURE, PATIENT_S),
        ([SOON] * SURE + [AT_ONCE] * 100, PATIENT_S),
        ([AT_ONCE] * 100, HASTY_S),
        ([SOON] * SURE + [LATE], HASTY_S),
        ([SOON] * SURE + [LATE] + [SOON] * (SURE - 1), HASTY_S),
        ([SOON, LATE] * 100, HASTY_S),
        ([LATE] + [SOON, AT_ONCE] * SURE, PATIENT_S),
    ],
)
def test_it_looks_for_long_after_so_many_events_that_were_worth_it(gaps: list[float], seconds: float) -> None:
    patience = Patience()
    for gap in gaps:
        patience.came(gap)
    assert patience.seconds == seconds
