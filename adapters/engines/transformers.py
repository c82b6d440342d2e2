"""`transformers serve`, which says nothing of itself: it is known by two routes that take POST and no other server has.

Its `/v1/models` reads the whole cache of models at every call and names them all, so it is not asked, and the model is not known.
"""

from perjoule.adapters.engines.adapter import Adapter
from perjoule.adapters.engines.pages import Pages
from perjoule.sidecar.ports import Engine

ROUTES = ("/load_model", "/reset")
WRONG_METHOD = 405


async def recognise(pages: Pages) -> Engine | None:
    """By its routes."""
    for route in ROUTES:
        if await pages.status(route) != WRONG_METHOD:
            return None
    return Engine("transformers")


ADAPTER = Adapter("transformers", recognise)
