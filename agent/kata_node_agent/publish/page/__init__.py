"""One page for people, of the documents that the commands print. Pure: nothing is read here.

The page has no script, and fetches nothing: style, bars and icon are in it. Whoever wants it to renew itself asks for that
in its address; a page that renews itself without being asked takes the place from under whoever reads it aloud.
"""

from kata_node_agent.publish.page.render import CONTENT_TYPE, HEADERS, Content, refresh_seconds, render

__all__ = ["CONTENT_TYPE", "HEADERS", "Content", "refresh_seconds", "render"]
