"""When an instance on the loop's own thread stops waiting for more requests."""

from trtserve_server.scheduling.quiet import ALONE, LOOK_EVERY, MAX_TURNS, QUIET_TURNS, QuietLoop


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
    assert turns_until_quiet(range(1, 2 * MAX_TURNS)) == MAX_TURNS


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


def lone_loop():
    loop = QuietLoop()
    turns_of_lone_requests(loop, ALONE)
    return loop


def test_a_caller_who_has_been_alone_for_a_while_is_not_made_to_wait():
    loop = QuietLoop()
    turns_of_lone_requests(loop, ALONE - 1)
    assert not loop.is_alone()
    turns_of_lone_requests(loop, 1)
    assert loop.is_alone()


def test_one_in_so_many_requests_of_a_lone_caller_waits_to_see_whether_others_come():
    loop = lone_loop()
    assert [loop.is_alone() for _ in range(2 * LOOK_EVERY)] == [*[True] * (LOOK_EVERY - 1), False] * 2


def test_company_that_is_seen_makes_everyone_wait_again():
    loop = lone_loop()
    while not loop.is_quiet(2):
        pass
    assert not loop.is_alone()
