from kata_node_agent.kubelet.registrar import in_words


def test_of_a_call_that_nobody_took_the_systems_reason_is_told() -> None:
    details = (
        "failed to connect to all addresses; last error: FAILED_PRECONDITION: unix:/p/kubelet.sock: connect failed: "
        "addr: unix:/p/kubelet.sock error: Connection refused"
    )
    assert (
        in_words("UNAVAILABLE", details) == "UNAVAILABLE: nobody answers at kubelet.sock: Connection refused"
    )


def test_kubelets_own_words_are_left_alone() -> None:
    details = "failed to register: the ResourceName: x is invalid"
    assert in_words("UNKNOWN", details) == f"UNKNOWN: {details}"
