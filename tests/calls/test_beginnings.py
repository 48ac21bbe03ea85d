"""Where prompts that begin alike are cut."""

import random

from latent_lab.calls.beginnings import beginnings, cheapest


def test_what_the_prompts_of_two_problems_begin_with_is_read_once_for_each() -> None:
    one, other = [1, 1, 1, 1, 1, 1], [2, 2, 2, 2]
    prompts = [[*one, 5], [*other, 5], [*one, 6, 7], [*other, 6], [9]]
    # 6 + 1 + 2 for the first, 4 + 1 + 1 for the other, 1 for the last, which begins like none.
    assert cheapest(prompts, [0, 2, 1, 3, 4])[0] == 16
    assert beginnings(prompts) == [(6, [0, 2]), (4, [1, 3]), (0, [4])]


def test_a_common_frame_is_read_for_each_problem_where_that_leaves_less() -> None:
    frame = [0] * 3
    prompts = [[*frame, 1, 1, 1, 1, 8], [*frame, 1, 1, 1, 1, 9], [*frame, 2, 8], [*frame, 3, 8]]
    # Apart: 7 + 2 for the first two, 3 + 2 + 2 for the others. One frame for all: 3 + 5 + 5 + 2 + 2 = 17.
    assert cheapest(prompts, [0, 1, 2, 3]) == (17, [(3, [0, 1, 2, 3])])
    assert cheapest(prompts[:3], [0, 1, 2]) == (7 + 2 + 5, [(7, [0, 1]), (0, [2])])
    # What shares nothing is cut as well, so that no rest is longer than others are.
    assert beginnings(prompts[:3]) == [(7, [0, 1]), (4, [2])]


def test_what_shares_little_does_not_make_the_rests_of_the_others_longer() -> None:
    ten = [1] * 10
    prompts = [[*ten, 5], [*ten, 6], [*ten, 7], [2, 3, *ten], [2, 4, *ten, 8]]
    # Cut after its one common token, the last two would leave 12. Alone they are cut where one token is left.
    assert beginnings(prompts) == [(10, [0, 1, 2]), (11, [3]), (12, [4])]  # 3 x 12 + 5 x 1 = 41 of 65


def test_every_prompt_keeps_a_token_of_its_own() -> None:
    assert beginnings([[1, 2, 3], [1, 2, 3, 4, 5]]) == [(2, [0, 1])]
    assert beginnings([[1, 2, 3]]) == [(0, [0])]


def test_what_is_hardly_worth_it_is_left() -> None:
    assert beginnings([[1, 2, 3, 4, 5, 6], [1, 7, 8, 9, 10, 11]]) == [(0, [0, 1])]  # 1 + 10 of 12: more than nine tenths
    assert beginnings([[1, 2, 3, 4, 5, 6], [1, 2, 8, 9, 10, 11]]) == [(2, [0, 1])]  # 2 + 8


def test_it_is_never_more_than_prompts_alone_or_all_cut_at_once() -> None:
    rng = random.Random(0)
    for _ in range(200):
        drawn = {tuple(rng.choice((1, 2)) for _ in range(rng.randint(1, 6))) for _ in range(6)}
        prompts = sorted(map(list, drawn))
        tokens, groups = cheapest(prompts, range(len(prompts)))
        assert sorted(i for _, group in groups for i in group) == list(range(len(prompts)))
        assert tokens == sum(count + sum(len(prompts[i]) - count for i in group) for count, group in groups)
        alone = sum(map(len, prompts))
        common = next(n for n in range(6, -1, -1) if len({tuple(p[:n]) for p in prompts}) == 1 and n < len(min(prompts, key=len)))
        assert tokens <= min(alone, alone - common * (len(prompts) - 1))
        for count, group in groups:
            assert len({tuple(prompts[i][:count]) for i in group}) == 1
            assert count < min(len(prompts[i]) for i in group)
