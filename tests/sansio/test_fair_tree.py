"""The laws of the fair tree; mutants of `fair_tree.py` that they kill:

- the charge stops at the leaf's own queue (a branch never pays): the share of a tenant, and siblings at every node;
- `still_ready` of the leaf passed to every level: work conservation below a branch with several ready leaves;
- `idle` that always goes up to the root: work conservation after a withdrawal;
- `select` that takes the first ready child: the same.
"""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._base.errors import StateError
from funcpipe_trio._sansio.fair_tree import FairTree

weights = st.one_of(st.integers(1, 100), st.sampled_from([10**15 + 1, 7 * 10**15, Fraction(1, 3)]))


@st.composite
def trees(draw):
    """A shape: the weights of 1 to 4 branches at the root, and of 1 to 3 leaves in each."""
    return draw(st.lists(st.tuples(weights, st.lists(weights, min_size=1, max_size=3)), min_size=1, max_size=4))


def build(shape):
    """Return the tree and its leaves, by (branch, leaf) numbers."""
    tree = FairTree()
    leaves = {}
    for number, (weight, inner) in enumerate(shape):
        branch = tree.add(tree.root, number, weight, branch=True)
        for key, leaf_weight in enumerate(inner):
            leaves[number, key] = tree.add(branch, key, leaf_weight)
    return tree, leaves


def serve(tree, count):
    """Serve leaves that never run out; return them in order."""
    served = []
    for _ in range(count):
        served.append(tree.select())
        tree.charge(served[-1], still_ready=True)
    return served


@settings(max_examples=100, deadline=None)
@given(shape=trees(), costs=st.lists(st.integers(1, 9), min_size=1, max_size=150))
def test_siblings_share_by_weight_at_every_node(shape, costs):
    """T5: P2 holds between the branches, and between the leaves of one branch, while all are backlogged."""
    tree, leaves = build(shape)
    names = {leaf: name for name, leaf in leaves.items()}
    for leaf in leaves.values():
        tree.ready(leaf)
    normalized = {}
    ranges = {}
    for cost in costs:
        leaf = tree.select()
        tree.charge(leaf, cost, still_ready=True)
        number, key = names[leaf]
        for node, weight in (((number,), shape[number][0]), ((number, key), shape[number][1][key])):
            normalized[node] = normalized.get(node, 0) + Fraction(cost) / weight
        for one, other in pairs(shape):
            lag = normalized.get(one, 0) - normalized.get(other, 0)
            low, high = ranges.get((one, other), (0, 0))
            ranges[one, other] = (min(low, lag), max(high, lag))

    for (one, other), (low, high) in ranges.items():
        assert high - low <= max(costs) * (Fraction(1) / weight_of(shape, one) + Fraction(1) / weight_of(shape, other))


def pairs(shape):
    branches = [(number,) for number in range(len(shape))]
    families = [branches] + [[(number, key) for key in range(len(inner))] for number, (_, inner) in enumerate(shape)]
    return [(family[i], family[j]) for family in families for j in range(len(family)) for i in range(j)]


def weight_of(shape, node):
    weight, inner = shape[node[0]]
    return weight if len(node) == 1 else inner[node[1]]


@settings(max_examples=100, deadline=None)
@given(
    shape=trees(),
    events=st.lists(
        st.tuples(st.sampled_from(["ready", "idle", "serve"]), st.integers(0, 11), st.booleans()), min_size=9
    ),
)
def test_a_leaf_is_found_iff_one_is_ready(shape, events):
    """P1 in a tree: whatever becomes ready, is served, or is withdrawn."""
    tree, leaves = build(shape)
    everyone, ready = list(leaves.values()), set(leaves.values())
    for leaf in everyone:
        tree.ready(leaf)
    for event, number, still_ready in events:
        leaf = everyone[number % len(everyone)]
        if event == "ready":
            tree.ready(leaf)
            ready.add(leaf)
        elif event == "idle":
            tree.idle(leaf)
            ready.discard(leaf)
        elif (leaf := tree.select()) is not None:
            tree.charge(leaf, still_ready=still_ready)
            if not still_ready:
                ready.discard(leaf)
        assert tree.backlogged == bool(ready)
        assert tree.select() in (ready or {None})


def test_a_tenant_with_many_streams_gets_no_more_than_one_with_one():
    """A hundred streams of weight 1 against one: half each, ±1 item."""
    tree, leaves = build([(1, [1] * 100), (1, [1])])
    for leaf in leaves.values():
        tree.ready(leaf)

    served = serve(tree, 1000)

    assert abs(served.count(leaves[1, 0]) - 500) <= 1


def test_a_reserve_for_a_lower_tier_bounds_its_gap():
    """Tiers as branches with weights 9 and 1: the lower one waits for at most floor(9/1) + 1 items."""
    tree, leaves = build([(9, [1, 1, 1]), (1, [1])])
    for leaf in leaves.values():
        tree.ready(leaf)

    served = serve(tree, 1000)

    turns = [position for position, leaf in enumerate(served) if leaf is leaves[1, 0]]
    assert max(after - before - 1 for before, after in pairwise(turns)) <= 10


def test_leaves_and_branches_compete_side_by_side():
    tree = FairTree()
    alone = tree.add(tree.root, "alone", 2)
    team = tree.add(tree.root, "team", 1, branch=True)
    inner = [tree.add(team, key, 1) for key in "ab"]
    for leaf in (alone, *inner):
        tree.ready(leaf)

    served = serve(tree, 600)

    assert [served.count(leaf) for leaf in (alone, *inner)] == [400, 100, 100]


def test_a_weight_can_be_changed_at_any_level():
    tree, leaves = build([(1, [1]), (1, [1])])
    for leaf in leaves.values():
        tree.ready(leaf)
    tree.set_weight(leaves[0, 0].parent, 3)

    served = serve(tree, 400)

    assert abs(served.count(leaves[0, 0]) - 300) <= 2


def test_a_node_knows_its_place():
    tree, leaves = build([(5, [7, 8])])
    branch = leaves[0, 1].parent

    assert branch.parent is tree.root
    assert (branch.size, branch.child(1), branch.child(2)) == (2, leaves[0, 1], None)
    assert (leaves[0, 1].flow.key, leaves[0, 1].flow.weight, leaves[0, 1].debt) == (1, 8, 0)


def test_a_node_is_in_debt_to_its_own_siblings():
    """The leaf of a served branch owes within the branch, and the branch owes to the others."""
    tree, leaves = build([(1, [1, 1]), (1, [1])])
    for leaf in leaves.values():
        tree.ready(leaf)
    tree.charge(leaves[0, 0], 3, still_ready=True)
    tree.charge(leaves[1, 0], 8, still_ready=True)
    tree.charge(leaves[0, 1], 2, still_ready=True)
    nodes = [leaves[0, 0], leaves[0, 1], leaves[0, 0].parent, leaves[1, 0].parent]

    assert [node.debt for node in nodes] == [3, 2, 5 - 3, 8 - 3]


def test_a_removed_key_is_free_again():
    """It comes back as a new node with the debt that it left; the old node is removed for good, and only itself."""
    tree, leaves = build([(1, [1, 1])])
    old, branch = leaves[0, 0], leaves[0, 0].parent
    for leaf in leaves.values():
        tree.ready(leaf)
    tree.charge(old, 3, still_ready=True)
    tree.remove(old)
    assert (branch.child(0), branch.size) == (None, 1)

    new = tree.add(branch, 0, 1)
    tree.remove(old)

    assert (branch.child(0), branch.size, new.debt) == (new, 2, 3)
    with pytest.raises(StateError, match=r"^cannot make flow 0 ready while it is removed$"):
        tree.ready(old)


def test_the_root_of_an_empty_tree_cannot_be_removed():
    tree = FairTree()

    with pytest.raises(StateError, match=r"^cannot remove a node while it is the root or has nodes under it$"):
        tree.remove(tree.root)


def test_a_removed_leaf_leaves_its_siblings_the_turn():
    tree, leaves = build([(1, [1, 1])])
    for leaf in leaves.values():
        tree.ready(leaf)
    tree.remove(leaves[0, 0])
    tree.remove(leaves[0, 0])

    assert serve(tree, 3) == [leaves[0, 1]] * 3
    tree.remove(leaves[0, 1])
    assert (tree.select(), tree.backlogged) == (None, False)


def test_a_service_costs_one_unless_said_otherwise():
    tree, leaves = build([(1, [1])])
    leaf = leaves[0, 0]
    tree.ready(leaf)
    tree.charge(leaf, still_ready=True)
    tree.charge(leaf, 5, still_ready=True)

    assert (leaf.flow.service, leaf.parent.flow.service) == (6, 6)


def test_a_tree_of_one_level_refuses_as_its_queue_does():
    tree = FairTree()
    first, second = (tree.add(tree.root, key, 1) for key in "ab")
    for leaf in (first, second):
        tree.ready(leaf)

    with pytest.raises(StateError, match=r"^cannot charge flow 'b' while it is not selected$"):
        tree.charge(second, still_ready=True)
    assert (first.flow.served, second.flow.served) == (0, 0)


def test_misuse_is_refused_and_changes_nothing():
    tree, leaves = build([(1, [1, 1]), (1, [1])])
    for leaf in leaves.values():
        tree.ready(leaf)
    first = tree.select()
    branch = first.parent

    with pytest.raises(StateError, match=r"^cannot add 'x' under a leaf$"):
        tree.add(first, "x", 1)
    with pytest.raises(ValueError, match=r"^FairQueue: key must be new, not 0$"):
        tree.add(tree.root, 0, 1)
    with pytest.raises(StateError, match=r"^cannot make a branch ready: its leaves are$"):
        tree.ready(branch)
    for node in (tree.root, branch):
        with pytest.raises(StateError, match=r"^cannot remove a node while it is the root or has nodes under it$"):
            tree.remove(node)
    with pytest.raises(StateError, match=r"^cannot charge leaf 0 while it is not selected$"):
        tree.charge(leaves[1, 0], still_ready=True)
    with pytest.raises(ValueError, match=r"^FairQueue: cost must be a positive int or Fraction, not 0$"):
        tree.charge(first, 0, still_ready=True)
    assert tree.select() is first
    assert [leaf.flow.served for leaf in leaves.values()] == [0, 0, 0]
