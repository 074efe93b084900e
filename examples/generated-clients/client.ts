// Lists, filters, waits and calls back, with openapi-fetch and the types that openapi-typescript generates from docs/openapi.json.

import createClient from "openapi-fetch";
import type { components, paths } from "./storage-api.js";

type Item = components["schemas"]["Item"];
type Order = components["schemas"]["OrderInProgress"];

const baseUrl = process.env.STORAGE_PROXY_URL;
const headers = { Authorization: `Bearer ${process.env.STORAGE_TOKEN}` };
const client = createClient<paths>({ baseUrl, headers });

function fail(message: string): never {
  throw new Error(message);
}

/** A page and the tag of the listing. */
async function page(number: number) {
  const query = { page: number, page_size: 20 };
  const { data, error, response } = await client.GET("/api/storage-resources/", { params: { query } });
  return { listing: data ?? fail(JSON.stringify(error)), tag: response.headers.get("ETag") ?? fail("no tag") };
}

/** All items, the orders in progress, and the tag. */
async function whole() {
  const first = await page(1);
  const pages = [first.listing];
  for (let number = 2; number <= first.listing.pagination.pages; number++) {
    pages.push((await page(number)).listing);
  }
  const items: Item[] = pages.flatMap((part) => part.resources);
  if (items.length !== first.listing.pagination.total) fail("the listing changed while it was read");
  const orders: Record<string, Order> = Object.assign({}, ...pages.map((part) => part.orders));
  return { items, orders, tag: first.tag };
}

async function wait(tag: string, seconds: number): Promise<number> {
  const header = { "If-None-Match": tag, Prefer: `wait=${seconds}` };
  const { response } = await client.GET("/api/storage-resources/", { params: { header } });
  if (response.headers.get("Preference-Applied") !== header.Prefer) fail("the proxy did not wait");
  return response.status;
}

const { items, orders, tag } = await whole();
console.log(`${items.length} items, ${Object.keys(orders).length} orders in progress`);
const query = { storage_system: "capstor", status: "active", page_size: 500 } as const;
const active = (await client.GET("/api/storage-resources/", { params: { query } })).data?.resources ?? [];
if (active.length === 0 || active.some((item) => item.storageSystem.key !== "capstor")) fail("the filter failed");
console.log(`${active.length} of them are in use on capstor`);

if ((await wait(tag, 1)) !== 304) fail("the listing changed");
console.log("no change within a second");

const waiting = Object.entries(orders).find(([, order]) => order.state === "pending-provider");
const [resource, order] = waiting ?? fail("no order waits for the provider");
// Node closes a request without a response after 300 seconds.
const change = wait(tag, 60);
const path = { order: order.uuid ?? fail("the order has no UUID"), action: "approve_by_provider" } as const;
const called = await client.POST("/api/callbacks/orders/{order}/{action}/", { params: { path } });
if (!called.data) fail(`the callback failed: ${JSON.stringify(called.error)}`);
if ((await change) !== 200) fail("the wait did not end when the listing changed");
const state = (await whole()).orders[resource]?.state ?? "completed";
console.log(`approved the order of ${resource}; it was ${order.state}, and is now ${state}`);
