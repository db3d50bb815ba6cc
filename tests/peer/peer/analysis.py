# SPDX-License-Identifier: Apache-2.0
"""What an OAP makes of snapshots: trees of frames with times.

This repeats the algorithm of OAP 10, its oddities included; compare-real-oap
holds it against the original. The dump period plays no part, only the time and
the sequence of each snapshot do.
"""

# core.default.maxSizeOfAnalyzeProfileSnapshot of an OAP
LIMIT = 12000


class Node:
    """A frame at one place of the tree; samples must come by rising sequence."""

    def __init__(self, signature):
        self.signature = signature
        self.children = {}
        self.count = 0
        self.duration = 0
        self._last = None

    def add(self, sequence, time):
        """Only the time between neighbours in the sequence counts, so a frame
        seen once took 0 ms and a hole ends the window."""
        if self._last and self._last[0] + 1 == sequence:
            self.duration += time - self._last[1]
        self._last = sequence, time
        self.count += 1

    def child(self, signature):
        return self.children.setdefault(signature, Node(signature))


def select(snapshots, queries, limit):
    """The snapshots to analyse as {sequence: snapshot}, and how many were found.

    A query asks for a time range, but gets all sequences between the lowest and
    the highest in that range (none for an empty range, where an OAP with a JDBC
    storage takes sequence 0). Snapshots are told apart by their sequence alone,
    so a second segment loses every sequence that the first has, too.
    """
    selected = {}
    found = 0
    for query in queries:
        window = query["timeRange"]
        own = [s for s in snapshots if s["segmentId"] == query["segmentId"]]
        sequences = [s["sequence"] for s in own if window["start"] <= s["time"] <= window["end"]]
        if not sequences or max(sequences) < 0:
            continue
        first, end = min(sequences), max(sequences) + 1
        found += end - first
        for snapshot in own:
            if first <= snapshot["sequence"] < min(end, first + limit):
                selected.setdefault(snapshot["sequence"], snapshot)
    return selected, found


def elements(root):
    """The tree as a list, breadth first, the way GraphQL gives it."""
    result = []
    queue = [(0, root)]
    for parent, node in queue:
        children = node.children.values()
        result.append({
            "id": str(len(result) + 1),
            "parentId": str(parent),
            "codeSignature": node.signature,
            "duration": node.duration,
            "durationChildExcluded": node.duration - sum(c.duration for c in children),
            "count": node.count,
        })
        queue.extend((len(result), c) for c in children)
    return result


def analyze(snapshots, queries, limit=LIMIT):
    """Answer getSegmentsProfileAnalyze: one tree per outermost frame."""
    selected, found = select(snapshots, queries, limit)
    roots = Node(None)
    for sequence in sorted(selected):
        node = roots
        for signature in selected[sequence]["stack"]:
            node = node.child(signature)
            node.add(sequence, selected[sequence]["time"])
    tip = None
    if found > limit:
        tip = (f"Out of snapshot analyze limit, {found} snapshots found, "
               f"but analysis first {limit} snapshots only.")
    return {"tip": tip, "trees": [{"elements": elements(r)} for r in roots.children.values()]}
