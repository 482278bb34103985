from hypothesis import given
from hypothesis import strategies as st

from portraitzoo.training.stream import SampleStream


@given(st.integers(1, 5), st.integers(0, 50), st.sampled_from([1, 2, 4]))
def test_any_number_of_processes_sees_the_same_stream(clips, updates, world):
    dataset = [None] * clips

    def stream(rank, world):
        return list(SampleStream(dataset, 8, 16, lambda: updates * 8, rank, world, seed=1))

    whole = stream(0, 1)
    parts = [stream(rank, world) for rank in range(world)]
    share = 8 // world
    joined = [part[i : i + share] for i in range(0, len(parts[0]), share) for part in parts]
    assert [item for block in joined for item in block] == whole
    assert [position for position, _ in whole] == list(range(updates * 8, updates * 8 + 16))


def test_every_clip_comes_once_in_each_pass():
    stream = list(SampleStream([None] * 6, 6, 18, lambda: 0, seed=2))
    passes = [tuple(clip for _, clip in stream[i : i + 6]) for i in range(0, 18, 6)]
    assert all(sorted(turn) == list(range(6)) for turn in passes)
    assert len(set(passes)) > 1, "passes are shuffled afresh"
