from lightning_nas.spaces.graphs import Edge, Graph


def test_nodes_that_are_given_come_first_and_may_have_no_edge():
    graph = Graph.of([("a", "c", "conv"), ("b", "c", "")], nodes=["b", "alone"])
    assert graph.nodes == ("b", "alone", "a", "c")
    assert graph.edges == (Edge("a", "c", "conv"), Edge("b", "c"))
    assert hash(graph) == hash(Graph.of(graph.edges, graph.nodes))
