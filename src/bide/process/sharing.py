"""Which worker accepts from which slot's sockets: each from its own, and some from others, too.

None of the sockets is left without a worker that accepts from it, since what waits in its backlog
would wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from bide.process.slots import Hands, Slot, Worker


def share_out(slots: Sequence[Slot], serving: Sequence[Worker], hands: Hands) -> None:
    """Have the sockets of slots without a worker accepted from by another slot's worker.

    Args:
        slots: all of them.
        serving: the workers that are ready, and were not told to end.
        hands: tell the workers.
    """
    if not serving:
        return
    for index, slot in enumerate(slots):
        holder = slot.worker
        if holder is None:
            # The one that does so already, else the one with the fewest.
            holder = min(serving, key=lambda each: (index not in each.accepts, len(each.accepts)))
        if index not in holder.accepts:
            holder.accepts.add(index)
            hands.accept(holder, index)
        for each in serving:
            if each is not holder and index in each.accepts:
                each.accepts.discard(index)
                hands.leave(each, index)
