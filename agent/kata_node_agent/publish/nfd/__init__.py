"""Two files for the `local` source of Node Feature Discovery (NFD).

The first says what this node can do, and lapses when nobody refreshes it (`text`). The second is a number behind an
extended resource, which must never lapse and never fall by itself (`ceiling`). How a file gets there is in `files`.
"""

from kata_node_agent.publish.nfd.files import FeatureFile, Outcome, PublishError
from kata_node_agent.publish.nfd.text import Feature, NodeFeatures, node_features

__all__ = ["Feature", "FeatureFile", "NodeFeatures", "Outcome", "PublishError", "node_features"]
