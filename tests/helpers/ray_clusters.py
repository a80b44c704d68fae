"""Ray clusters of several nodes on this machine, for tests."""

import os
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

STORE_BYTES = 80 * 2**20


@contextmanager
def three_nodes(**system):
    """Start a cluster of three nodes with one processor each; only its head can't be lost."""
    # A token that the user has made for other clusters would be asked for here, too.
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parent)}
    with mock.patch.dict(os.environ, variables):
        os.environ.pop("RAY_ADDRESS", None)
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                "_system_config": system,
            },
        )
        try:
            for _ in range(2):
                add_node(cluster)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def add_node(cluster):
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    cluster.wait_for_nodes()
    return node


def remove_node(cluster, node_id):
    """Kill a node as a power failure would, with all its processes."""
    node = next(node for node in cluster.worker_nodes if node.node_id == node_id)
    cluster.remove_node(node, allow_graceful=False)
