"""Orders the states of a recorded run by what its recorder counted, and by no clock.

A clock may step back, and those of two machines differ. Within one recording the state of more
logged values is the later one. Of two recordings under one ``run_id`` (a job that was started
again) the one that is ingested later counts, except that only a finished one replaces a finished
one: see ``store/dedup.py``.
"""

from typing import Final

#: Stages of a recording: of two states with equally many values that of the later stage counts.
AT_WORK, TERMINATED, AT_END = 0, 1, 2

# The 63 bits of a progress: 1, the recording (30), the logged values (30), the stage (2).
_RECORDED: Final = 1 << 62
_RECORDING_BITS: Final = 30
_STATE_BITS: Final = 32
_MOST_VALUES: Final = (1 << 30) - 1


def recorded_progress(recording: int, n_values: int, stage: int) -> int:
    """``ReadBatch.progress`` of a state of a recording.

    ``recording`` tells it from others of the same run; its last 30 bits count. Journals of earlier
    versions have the second in which they began.
    """
    mine = recording % (1 << _RECORDING_BITS)
    return _RECORDED | mine << _STATE_BITS | min(n_values, _MOST_VALUES) << 2 | stage


def are_of_two_recordings(progress: int, other: int) -> bool:
    """Whether both are states of recordings, and not of the same one."""
    both_recorded = min(progress, other) >= _RECORDED
    return both_recorded and progress >> _STATE_BITS != other >> _STATE_BITS
