"""When an instance on the loop's own thread stops waiting for more requests."""

from trtserve_server.scheduling.quiet import ALONE, MAX_TURNS, QUIET_TURNS, QuietLoop


def turns_until_quiet(waiting_by_turn):
    loop = QuietLoop()
    for number, waiting in enumerate(waiting_by_turn, 1):
        if loop.is_quiet(waiting):
            return number
    return None


def test_a_lone_request_waits_for_a_few_turns_only():
    assert turns_until_quiet([1] * 50) == QUIET_TURNS + 1


def test_each_new_request_starts_the_wait_anew():
    assert turns_until_quiet([1] * QUIET_TURNS + [2] * 50) == 2 * QUIET_TURNS + 1


def test_a_loop_that_is_never_quiet_does_not_hold_requests_for_ever():
    assert turns_until_quiet(range(1, 100)) == MAX_TURNS


def test_the_count_starts_anew_after_each_batch():
    loop = QuietLoop()
    counts = []
    for _ in range(2):
        turns = 1
        while not loop.is_quiet(1):
            turns += 1
        counts.append(turns)
    assert counts == [QUIET_TURNS + 1] * 2


def turns_of_lone_requests(loop, batches):
    counts = []
    for _ in range(batches):
        turns = 1
        while not loop.is_quiet(1):
            turns += 1
        counts.append(turns)
    return counts


def test_a_caller_who_has_been_alone_for_a_while_hardly_waits():
    assert turns_of_lone_requests(QuietLoop(), ALONE + 2) == [QUIET_TURNS + 1] * ALONE + [2, 2]


def test_company_makes_the_wait_long_again():
    loop = QuietLoop()
    turns_of_lone_requests(loop, ALONE + 1)
    assert not loop.is_quiet(1)
    while not loop.is_quiet(2):
        pass
    assert turns_of_lone_requests(loop, 1) == [QUIET_TURNS + 1]
