"""Lists, filters, waits and calls back, with the client that openapi-python-client generates from docs/openapi.json."""

import os
from concurrent.futures import ThreadPoolExecutor

from httpx import Timeout
from storage_client import AuthenticatedClient
from storage_client.api.callbacks import relay_order_callback
from storage_client.api.resources import list_storage_resources
from storage_client.models.item import Item
from storage_client.models.listing import Listing
from storage_client.models.list_storage_resources_status import ListStorageResourcesStatus
from storage_client.models.order_in_progress import OrderInProgress
from storage_client.models.relay_order_callback_action import RelayOrderCallbackAction
from storage_client.models.relay_order_callback_body import RelayOrderCallbackBody

# The time of a waiting request is added to the client's usual timeout.
WAIT = 60
client = AuthenticatedClient(os.environ["STORAGE_PROXY_URL"], os.environ["STORAGE_TOKEN"], timeout=Timeout(WAIT + 60))


def page(number: int) -> tuple[Listing, str]:
    """A page and the tag of the listing."""
    answer = list_storage_resources.sync_detailed(client=client, page=number, page_size=20)
    if not isinstance(answer.parsed, Listing):
        raise SystemExit(f"the listing cannot be read: {answer.status_code} {answer.content!r}")
    return answer.parsed, answer.headers["ETag"]


def whole() -> tuple[list[Item], dict[str, OrderInProgress], str]:
    """All items, the orders in progress, and the tag."""
    first, tag = page(1)
    pages = [first, *(page(number)[0] for number in range(2, first.pagination.pages + 1))]
    items = [item for part in pages for item in part.resources]
    if len(items) != first.pagination.total:
        raise SystemExit("the listing changed while it was read")
    return items, {key: order for part in pages for key, order in part.orders.additional_properties.items()}, tag


def wait(tag: str, seconds: int) -> int:
    """The status after at most this many seconds: 200 if the listing differs from the tag, else 304."""
    answer = list_storage_resources.sync_detailed(client=client, if_none_match=tag, prefer=f"wait={seconds}")
    if answer.headers["Preference-Applied"] != f"wait={seconds}":
        raise SystemExit("the proxy did not wait")
    return answer.status_code


items, orders, tag = whole()
print(f"{len(items)} items, {len(orders)} orders in progress")
active = list_storage_resources.sync(
    client=client, storage_system="capstor", status=ListStorageResourcesStatus.ACTIVE, page_size=500
)
if not isinstance(active, Listing) or {item.storage_system.key for item in active.resources} != {"capstor"}:
    raise SystemExit("the filter failed")
print(f"{len(active.resources)} of them are in use on capstor")

if wait(tag, 1) != 304:
    raise SystemExit("the listing changed")
print("no change within a second")

resource, order = next((key, order) for key, order in orders.items() if order.state == "pending-provider")
if order.uuid is None:
    raise SystemExit("the order has no UUID")
with ThreadPoolExecutor() as threads:
    change = threads.submit(wait, tag, WAIT)
    called = relay_order_callback.sync_detailed(
        order.uuid, RelayOrderCallbackAction.APPROVE_BY_PROVIDER, client=client, body=RelayOrderCallbackBody()
    )
    if called.status_code != 200:
        raise SystemExit(f"the callback failed: {called.status_code} {called.content!r}")
    if change.result() != 200:
        raise SystemExit("the wait did not end when the listing changed")
now = whole()[1].get(resource)
print(f"approved the order of {resource}; it was {order.state}, and is now {now.state if now else 'completed'}")
