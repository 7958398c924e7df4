"""The proofs of RFC 6962 that a line is in a tree; who checks them has `verify_bundle`."""

from services.auditor.verify_bundle import node_hash


class Tree:
    """The tree over the hashes of leaves, with all its levels: a proof is a walk from the bottom to the top."""

    def __init__(self, leaves: list[bytes]) -> None:
        self._levels = [leaves]
        while len(level := self._levels[-1]) > 1:
            odd = level[-1:] if len(level) % 2 else []  # It has no neighbour and goes up as it is.
            pairs = zip(level[::2], level[1::2], strict=False)
            self._levels.append([node_hash(left, right) for left, right in pairs] + odd)

    def path(self, index: int) -> list[bytes]:
        """The audit path of a leaf, RFC 6962 section 2.1.1. Raises IndexError."""
        if not 0 <= index < len(self._levels[0]):
            raise IndexError(index)
        path = []
        for level in self._levels[:-1]:
            neighbour = index ^ 1
            if neighbour < len(level):
                path.append(level[neighbour])
            index //= 2
        return path
