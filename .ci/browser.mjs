// The checks of the pages for operators in Chromium. `.ci/browser` starts the sites and describes them in a JSON file, the only argument.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const site = JSON.parse(readFileSync(process.argv[2]));
const modules = createRequire(`${site.modules}/`);
const { chromium } = modules("playwright-core");
const axe = readFileSync(modules.resolve("axe-core/axe.min.js"), "utf8");

const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };
// The width of A4 without margins.
const PAPER = { width: 718, height: 1000 };
const MAX_SIZE = 200_000;
const PAGES = { now: "/ui/", resources: "/ui/resources", tree: "/ui/resources?view=tree", changes: "/ui/changes", trash: "/ui/trash" };
const PAGE_SIZE = 100;

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

// Helpers

/** A browser of its own. `problems` collects errors of the console but expected ones, and requests to other origins than these. */
async function visit(options, use, origins = [], expected = /^$/) {
  const context = await browser.newContext({ viewport: DESKTOP, acceptDownloads: true, ...options });
  context.setDefaultTimeout(20_000);
  const problems = [];
  context.on("weberror", (error) => problems.push(`an error: ${error.error()}`));
  context.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`) && dialog.dismiss());
  context.on("page", (page) => {
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !expected.test(message.text())) problems.push(`the console: ${message.text()}`);
    });
    page.on("request", (request) => {
      const { origin } = new URL(request.url());
      if (origins.length && !origins.includes(origin)) problems.push(`a request to ${origin}`);
      if (request.resourceType() === "script") problems.push(`a script: ${request.url()}`);
    });
  });
  try {
    const result = await use(await context.newPage(), context, problems);
    assert.deepEqual(problems, []);
    return result;
  } finally {
    await context.close();
  }
}

/** A browser at the filled site, signed in. */
function operator(options, use) {
  const origins = [site.filled, site.replica, site.realm].map((url) => new URL(url).origin);
  return visit(options, async (page, context, problems) => {
    await open(page, `${site.filled}/ui/`);
    return use(page, context, problems);
  }, origins);
}

/** Opens a page of a site, and follows the sign-in. */
async function open(page, url, status = 200) {
  const answers = [];
  const note = (answer) => answer.request().isNavigationRequest() && answers.push(answer);
  page.on("response", note);
  await page.goto(url);
  // The page of the sign-in refreshes itself.
  await page.waitForURL((at) => !at.pathname.startsWith("/ui/login") && !at.pathname.startsWith("/ui/callback"));
  await page.waitForLoadState();
  page.off("response", note);
  const answer = answers.at(-1);
  assert.equal(answer.status(), status, `${url} at ${page.url()}`);
  return answer;
}

const text = async (page, selector) => (await page.locator(selector).innerText()).replace(/\s+/g, " ").trim();
const json = async (page, url) => (await page.request.get(url.replace(/\/ui\/resources(\?|$)/, "/ui/resources.json$1"))).json();
const ids = (page) => page.locator("tbody th a.path").evaluateAll((links) => links.map((link) => link.pathname.split("/").at(-1)));
const sorted = (values) => [...values].sort((one, other) => (one < other ? -1 : Number(one > other)));

async function screenshot(page, name) {
  await page.screenshot({ path: `${site.screenshots}/${name}.png`, fullPage: true });
}

/** Resources of the filled site that show every part of the page of a resource. */
async function examples(page) {
  const rows = await json(page, `${site.filled}/ui/resources`);
  const find = (name, is) => [name, `/ui/resources/${(rows.find(is) ?? assert.fail(`no resource ${name}`)).id}`];
  return Object.fromEntries([
    find("held", (row) => row.hold === "drift" && row.full_at),
    find("asks", (row) => row.hold === "asks"),
    find("task", (row) => row.why.includes("failed:")),
    find("ordered", (row) => row.order_state === "pending-consumer"),
    find("identity", (row) => row.turn === "identity" && !row.hold),
    find("idle", (row) => row.turn === "nobody" && row.used_bytes),
  ]);
}

async function everyPage(page) {
  return { ...PAGES, ...(await examples(page)) };
}

/** What holds on each page. */
async function assertComplete(page, answer, maxSize = MAX_SIZE) {
  const at = page.url();
  const headers = answer.headers();
  assert.match(headers["content-security-policy"] ?? "", /^default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'/, at);
  assert.equal(headers["x-content-type-options"], "nosniff", at);
  assert.match(await page.title(), /^.+ · Storage$/, at);
  assert.equal(await page.locator("h1").count(), 1, `headings h1 of ${at}`);
  for (const landmark of ["banner", "navigation", "search", "main"]) {
    assert.ok((await page.getByRole(landmark).count()) > 0, `${at} has no landmark ${landmark}`);
  }
  assert.equal(await page.getByRole("main").count(), 1, at);
  assert.equal(await page.locator("nav[aria-label=Pages] a[aria-current]").count(), 1, at);
  assert.equal(await page.locator("script, iframe, object, embed, [style], [onclick], [onload], [onerror]").count(), 0, `scripts at ${at}`);
  assert.ok((await answer.body()).length < maxSize, `${at} has ${(await answer.body()).length} bytes`);
  const duplicates = await page.locator("[id]").evaluateAll((all) => all.map((it) => it.id).filter((id, at, ids) => ids.indexOf(id) !== at));
  assert.deepEqual(duplicates, [], `duplicate IDs at ${at}`);
}

async function assertFits(page) {
  const wide = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return null;
    const culprits = [...document.querySelectorAll("body *")].filter((it) => it.getBoundingClientRect().right > clientWidth + 1);
    return `${scrollWidth} > ${clientWidth}: ${culprits.slice(0, 3).map((it) => it.outerHTML.slice(0, 200)).join(" | ")}`;
  });
  assert.equal(wide, null, `${page.url()} is too wide`);
}

function parseCsv(csv) {
  const rows = [[]];
  for (const [, quoted, plain, end] of csv.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)) {
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
    if (end !== ",") rows.push([]);
  }
  assert.deepEqual(rows.pop(), []);
  const [head, ...body] = rows;
  return body.map((row) => {
    assert.equal(row.length, head.length);
    return Object.fromEntries(row.map((value, column) => [head[column], value]));
  });
}

/** Runs an action for each value, and fails at the end with what went wrong for each. */
async function forEach(values, action) {
  const faults = [];
  for (const value of values) {
    await action(value).catch((error) => faults.push(`${JSON.stringify(value).slice(0, 150)}: ${error.message}`));
  }
  assert.deepEqual(faults.slice(0, 8), [], `${faults.length} faults`);
}

// Checks

async function sign_in_and_out() {
  await visit({}, async (page, context) => {
    await open(page, `${site.filled}/ui/resources?q=a%20b`);
    assert.equal(page.url(), `${site.filled}/ui/resources?q=a%20b`);
    assert.equal(await page.locator("#f-q").inputValue(), "a b");
    assert.match(await text(page, "form.user"), /operator/);
    const session = (await context.cookies()).filter((cookie) => cookie.name.includes("hpc-storage"));
    assert.deepEqual(session.map(({ httpOnly, sameSite }) => [httpOnly, sameSite]), [[true, "Lax"]]);
    assert.equal(await page.evaluate(() => document.cookie), "");
    await page.getByRole("button", { name: "Sign out" }).click();
    assert.match(await text(page, "main"), /signed out here and at the identity provider/);
    await screenshot(page, "signed-out-light");
    assert.deepEqual(await context.cookies(site.filled), []);
    // The next page needs a new sign-in.
    const asked = page.waitForRequest((request) => request.url().includes("/protocol/openid-connect/auth?"));
    await open(page, `${site.filled}/ui/changes`);
    await asked;
  });
}

async function sign_in_without_the_role() {
  await visit({}, async (page) => {
    await open(page, `${site.forbidden}/ui/trash`, 403);
    assert.match(await text(page, "main"), /signed in as operator.*you need the role storage-admin in the realm/);
    assert.equal(await page.locator("h1").count(), 1);
    assert.equal(await page.locator("nav[aria-label=Pages]").count(), 0);
    await screenshot(page, "forbidden-light");
    await page.setViewportSize(PHONE);
    await assertFits(page);
    await screenshot(page, "forbidden-phone");
    await page.getByRole("link", { name: "Check again" }).click();
    await page.waitForURL(`${site.forbidden}/ui/trash`);
    await page.getByRole("button", { name: "Sign out" }).click();
    assert.match(await text(page, "h1"), /Signed out/);
  }, [], /the server responded with a status of 403/);
}

async function session_that_expires_midway(javaScriptEnabled = true) {
  await operator({ javaScriptEnabled }, async (page) => {
    await open(page, `${site.filled}/ui/resources?view=tree`);
    await page.locator("#f-q").fill("alpha");
    await page.locator("#f-system").selectOption("capstor");
    await page.request.delete(`${site.realm}/_simulator/sessions`);
    later(600);
    // The form leads through the sign-in to its selection.
    const asked = page.waitForRequest((request) => request.url().includes("/protocol/openid-connect/auth?"));
    await page.getByRole("button", { name: "Apply" }).click();
    await asked;
    await page.waitForURL(/\/ui\/resources\?.*q=alpha/);
    const query = new URL(page.url()).searchParams;
    assert.deepEqual(["q", "system", "view"].map((name) => query.get(name)), ["alpha", "capstor", "tree"]);
    assert.match(await text(page, ".bar-line [role=status]"), /selected/);
    // With the session at the realm, an expired token is refreshed without a sign-in.
    later(600);
    let signIns = 0;
    page.on("request", (request) => (signIns += request.url().includes("/openid-connect/auth")));
    await page.getByRole("link", { name: "Changes" }).click();
    assert.equal(await text(page, "h1"), "Changes");
    assert.equal(signIns, 0);
  });
}

let ahead = 0;

/** Sets the clock of the filled site ahead. */
function later(seconds) {
  ahead += seconds;
  writeFileSync(`${site.clock}.new`, `+${ahead}.000\n`);
  renameSync(`${site.clock}.new`, site.clock);
}

async function each_page(javaScriptEnabled = true) {
  await operator({ javaScriptEnabled }, async (page) => {
    await forEach(Object.entries(await everyPage(page)), async ([name, path]) => {
      await page.setViewportSize(DESKTOP);
      const answer = await open(page, site.filled + path);
      await assertComplete(page, answer);
      for (const viewport of [DESKTOP, { width: 740, height: 800 }, PHONE, { width: 320, height: 600 }]) {
        await page.setViewportSize(viewport);
        await assertFits(page);
      }
      // What the page is for.
      const content = await text(page, "main");
      const expected = {
        now: /wait for somebody, the longest for .*Whose turn it is .*Longest waits .*Health/,
        resources: /\d+ resources.*Whose turn/, tree: /capstor \/ archive \/ \p{L}/u,
        changes: /The next pass changes \d+ resources. \d+ changes ask for confirmation.*Next pass/,
        trash: /directories in the trash, the next one can be purged.*Full, or soon.*Totals/,
        held: /Whose turn: Operator.*In this order: hpc-storage-provisioner explain.*What Waldur says.*Why nothing is done drift/,
        asks: /hpc-storage-provisioner apply/, task: /failed; the next pass tries again.*Steps/,
        ordered: /Whose turn: Customer/, identity: /Whose turn: Identity service.*has no Unix GID/, idle: /Nobody has to act/,
      }[name];
      assert.match(content, expected, path);
      // Each relative time has the absolute one beside it.
      const relative = await page.locator(".relative").count();
      assert.equal(await page.locator(".relative + time[datetime]").count(), relative, path);
    });
  });
}

async function links_lead_to_pages() {
  await operator({}, async (page) => {
    const seen = new Set();
    for (const path of Object.values(await everyPage(page))) {
      await open(page, site.filled + path);
      const links = await page.locator("a[href]").evaluateAll((all) => all.map((link) => link.href));
      for (const link of links.filter((it) => it.startsWith(site.filled) && !seen.has(it))) {
        seen.add(link);
        if (seen.size > 250) break;
        const answer = await page.request.get(link);
        assert.equal(answer.status(), 200, link);
      }
      // A fragment is on the page.
      const fragments = await page.locator("a[href^='#']").evaluateAll((all) => all.filter((link) => !document.querySelector(link.hash)).length);
      assert.equal(fragments, 0, path);
    }
    // The number of a card is that of the selection it leads to.
    await open(page, `${site.filled}/ui/`);
    for (const card of await page.locator(".card a").evaluateAll((all) => all.map((link) => [link.href, link.querySelector(".number").textContent]))) {
      assert.equal((await json(page, card[0])).length, Number(card[1]), card[0]);
    }
    await open(page, `${site.filled}/ui/changes`);
    const [link, number] = await page.locator("#summary + * a, table:has(#summary) a").first().evaluate((it) => [it.href, it.textContent]);
    await open(page, link);
    assert.equal(await page.locator("tbody tr:not(.group) th a.path").count(), Number(number));
  });
}

/** Whether a row of the JSON belongs to a selection. */
function isSelected(row, query) {
  const equal = (name, value) => query.get(name) === null || query.get(name) === "" || query.get(name) === (value ?? "");
  const hold = query.get("hold");
  return (
    equal("system", row.system) && equal("type", row.type) && equal("status", row.status) && equal("state", row.state) && equal("turn", row.turn) &&
    (!hold || (hold === "any" ? row.hold : hold === "none" ? !row.hold : row.hold === hold)) &&
    (row.customer ?? "").toLowerCase().includes((query.get("customer") ?? "").toLowerCase())
  );
}

/** Fills in the form of the filters, submits it and checks the result against all rows. */
async function select(page, all, values) {
  await page.locator(".filters").evaluate((form) => [...form.elements].forEach((it) => it.type !== "hidden" && (it.value = "")));
  for (const [name, value] of Object.entries(values)) {
    const control = page.locator(`#f-${name}`);
    await ((await control.evaluate((it) => it.localName)) === "select" ? control.selectOption(value) : control.fill(value));
  }
  await Promise.all([page.waitForEvent("load"), page.getByRole("button", { name: "Apply" }).click()]);
  const url = new URL(page.url());
  const what = url.search;
  const selection = await json(page, page.url());
  if (!values.q) assert.deepEqual(sorted(selection.map((row) => row.id ?? "")), sorted(all.filter((row) => isSelected(row, url.searchParams)).map((row) => row.id ?? "")), what);
  const status = await text(page, ".bar-line [role=status]");
  assert.match(status, new RegExp(`^${selection.length} resources? of ${all.length} resources selected$`), what);
  assert.deepEqual(await ids(page), selection.map((row) => row.id).filter(Boolean), what);
  // The form shows the selection.
  for (const [name, value] of Object.entries(values)) assert.equal(await page.locator(`#f-${name}`).inputValue(), value, what);
  if (!values.customer) return selection;
  if (selection.length === 0) {
    await page.getByRole("link", { name: "Show all resources" }).click();
  } else {
    await page.locator(".filters").getByRole("link", { name: "Clear" }).click();
  }
  await page.waitForURL(/resources$/);
  return selection;
}

async function filters(javaScriptEnabled = true) {
  await operator({ javaScriptEnabled }, async (page) => {
    await open(page, `${site.filled}/ui/resources`);
    const all = await json(page, page.url());
    const controls = await page.locator(".filters select").evaluateAll((all) => all.map((it) => [it.name, [...it.options].map((option) => option.value).filter(Boolean)]));
    assert.deepEqual(controls.map(([name]) => name), ["turn", "system", "type", "status", "state", "hold"]);
    const used = {};
    for (const [name, values] of controls) {
      // Without scripts, one value of each is enough.
      for (const value of javaScriptEnabled ? values : values.slice(0, 1)) {
        const selection = await select(page, all, { [name]: value });
        if (selection.length) used[name] = [...(used[name] ?? []), value];
      }
      assert.ok(used[name], `no value of ${name} selects anything`);
    }
    const customers = await page.locator("#customers option").evaluateAll((all) => all.map((it) => it.value));
    assert.ok(customers.length > 3);
    for (const customer of [customers[0], "ALPHA", "Käufer «", "nobody"]) await select(page, all, { customer });
    for (const q of ["mch-p1", "capstor store", all.find((row) => row.id).id, "no such thing"]) await select(page, all, { q });
    // Combinations of two and three, those with a result and others.
    const names = Object.keys(used);
    for (const [position, name] of names.entries()) {
      const [second, third] = [names[(position + 1) % names.length], names[(position + 3) % names.length]];
      await select(page, all, { [name]: used[name][0], [second]: used[second].at(-1) });
      await select(page, all, { [name]: used[name].at(-1), [second]: used[second][0], [third]: used[third][0], customer: "uni" });
    }
    // An unknown value in a link selects nothing, and says so.
    await open(page, `${site.filled}/ui/resources?status=<b>`);
    assert.match(await text(page, ".error"), /Nothing is selected: status has no value <b>/);
  });
}

async function sorting_and_tree(javaScriptEnabled = true) {
  await operator({ javaScriptEnabled }, async (page) => {
    await open(page, `${site.filled}/ui/resources?system=capstor`);
    const columns = { Resource: "path", Customer: "customer", Waldur: "status", "Whose turn": null, Since: "since", "Space used": "used_bytes" };
    for (const [title, key] of Object.entries(columns)) {
      const orders = {};
      for (const _ of [1, 2]) {
        await page.locator("thead").getByRole("link", { name: title }).click();
        const direction = await page.locator("thead th[aria-sort]").getAttribute("aria-sort");
        assert.match(await text(page, "thead th[aria-sort]"), new RegExp(`^${title} [↑↓]$`));
        assert.match(page.url(), /system=capstor/);
        const rows = await json(page, page.url());
        assert.deepEqual(await ids(page), rows.map((row) => row.id));
        orders[direction] = rows.map((row) => row[key]).filter((value) => value !== null && value !== undefined);
      }
      assert.deepEqual(Object.keys(orders).length, 2, title);
      if (key) {
        assert.deepEqual(orders.ascending, sorted(orders.ascending), `ascending by ${title}`);
        assert.deepEqual(orders.descending, sorted(orders.descending).reverse(), `descending by ${title}`);
      }
    }
    const table = await ids(page);
    await page.getByRole("link", { name: "Show as tree" }).click();
    assert.ok((await page.locator("tr.group").count()) > 3);
    assert.deepEqual(sorted(await ids(page)), sorted(table));
    // A new selection keeps tree and order.
    await page.locator("#f-type").selectOption("store");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.waitForURL(/type=store.*sort=usage.*view=tree/);
    await page.getByRole("link", { name: "Show as table" }).click();
    assert.equal(await page.locator("tr.group").count(), 0);
  });
}

async function downloads(javaScriptEnabled = true) {
  await operator({ javaScriptEnabled }, async (page) => {
    await open(page, `${site.filled}/ui/resources?system=vast&sort=path&order=desc`);
    const shown = await ids(page);
    const files = {};
    for (const format of ["CSV", "JSON"]) {
      const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: format, exact: true }).click()]);
      assert.equal(download.suggestedFilename(), `storage-resources.${format.toLowerCase()}`);
      files[format] = readFileSync(await download.path(), "utf8");
    }
    const rows = JSON.parse(files.JSON);
    assert.deepEqual(rows.map((row) => row.id), shown);
    const table = parseCsv(files.CSV);
    assert.deepEqual(table, rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, String(value ?? "")]))));
    assert.ok(table.length > 3 && table.every((row) => row.system === "vast"));
  });
}

async function keyboard(javaScriptEnabled = true) {
  await operator({ javaScriptEnabled }, async (page) => {
    await open(page, `${site.filled}/ui/resources?system=capstor`);
    const focused = () => page.evaluate(() => {
      const it = document.activeElement;
      if (it === document.body) return null;
      const style = getComputedStyle(it);
      const box = it.getBoundingClientRect();
      const at = document.elementFromPoint(box.left + box.width / 2, box.top + Math.min(box.height / 2, 20));
      return {
        name: it.id === "main" ? "main" : it.matches(".skip") ? "skip" : it.closest("nav[aria-label=Pages]") ? `nav ${it.textContent}` : it.id || it.name || it.getAttribute("aria-labelledby") || it.textContent.trim(),
        outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        inside: box.width > 0 && box.left >= 0 && box.right <= innerWidth + 1 && box.top < innerHeight && box.bottom > 0,
        covered: at !== null && !it.contains(at) && !at.contains(it),
      };
    });
    const reached = [];
    for (let steps = 0; steps < 400; steps += 1) {
      await page.keyboard.press("Tab");
      const now = await focused();
      if (now === null) break;
      assert.ok(now.outline, `the focus on ${now.name} is not visible`);
      assert.ok(now.inside && !now.covered, `the focus on ${now.name} is outside of the window or covered`);
      reached.push(now.name);
    }
    const expected = [
      "skip", "nav Now", "nav Resources", "nav Changes", "nav Trash and usage", "find", "Find", "Sign out", "f-q", "f-customer", "f-turn", "f-system",
      "f-type", "f-status", "f-state", "f-hold", "Apply", "Clear", "Show as tree", "CSV", "JSON", "rows", "Resource", "Customer", "Waldur",
    ];
    assert.deepEqual(reached.slice(0, expected.length), expected);
    const rows = await page.locator("tbody th a.path").allInnerTexts();
    assert.deepEqual(reached.filter((name) => rows.includes(name)), rows);
    assert.ok(reached.at(-1) === "Waldur", reached.at(-1));
    // No pointer from here on.
    await open(page, `${site.filled}/ui/`);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForURL(/#main$/);
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.querySelector("main").contains(document.activeElement)));
    await open(page, `${site.filled}/ui/`);
    for (let step = 0; step < 6; step += 1) await page.keyboard.press("Tab");
    await page.keyboard.type("mch-p1");
    await page.keyboard.press("Enter");
    await page.waitForURL(/resources\?q=mch-p1/);
    for (let step = 0; (await focused())?.name !== "f-turn"; step += 1) {
      assert.ok(step < 20);
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("ArrowDown");
    for (let step = 0; (await focused())?.name !== "Apply"; step += 1) {
      assert.ok(step < 20);
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Enter");
    await page.waitForURL(/turn=operator/);
    await open(page, `${site.filled}/ui/resources?system=capstor`);
    for (let step = 0; !(await focused())?.name.startsWith("/"); step += 1) {
      assert.ok(step < 60);
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Enter");
    await page.waitForURL(/resources\/[0-9a-f-]{36}$/);
    assert.equal(await page.locator("h1.path").count(), 1);
  });
}

async function hostile_texts(javaScriptEnabled = true) {
  await visit({ javaScriptEnabled }, async (page) => {
    const paths = [...Object.values(PAGES), ...(javaScriptEnabled ? [2, 3] : []).flatMap((number) => [`/ui/resources?page=${number}`, `/ui/trash?trash=${number}&full=${number}&totals=${number}`, `/ui/changes?page=${number}`])];
    for (const hostile of Object.values(site.hostile_texts)) {
      const value = encodeURIComponent(hostile);
      if (!javaScriptEnabled) break;
      paths.push(`/ui/resources?q=${value}&customer=${value}&system=${value}&type=${value}&status=${value}&turn=${value}&sort=${value}`);
      paths.push(`/ui/changes?system=${value}&what=${value}`);
    }
    const each = javaScriptEnabled ? 9 : 30;
    paths.push(...site.hostile_ids.filter((_, position) => position % each === 0).map((id) => `/ui/resources/${id}`), ...site.hostile_ids.slice(-15).map((id) => `/ui/resources/${id}`));
    const shots = { "/ui/": "now", "/ui/resources": "resources", "/ui/changes": "changes", "/ui/trash": "trash" };
    await forEach(paths, async (path) => {
      await page.setViewportSize(DESKTOP);
      const answer = await open(page, site.hostile + path);
      // Escaped texts of the maximum length are longer.
      await assertComplete(page, answer, 3 * MAX_SIZE);
      const found = await page.evaluate(() => {
        // Characters that are invisible or change the order of others.
        const raw = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/u;
        const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
        const texts = [];
        while (walker.nextNode()) texts.push(walker.currentNode.data);
        texts.push(...[...document.querySelectorAll("[title], [aria-label], [placeholder]")].flatMap((it) => [it.title, it.ariaLabel ?? "", it.placeholder ?? ""]));
        return { injected: document.querySelector("#injected") !== null || "injected" in window, raw: texts.filter((it) => raw.test(it)).slice(0, 3) };
      });
      assert.deepEqual(found, { injected: false, raw: [] });
      for (const [name, viewport] of Object.entries({ light: DESKTOP, phone: PHONE })) {
        await page.setViewportSize(viewport);
        await assertFits(page);
        if (javaScriptEnabled && path in shots) await screenshot(page, `hostile-${shots[path]}-${name}`);
      }
      if (javaScriptEnabled && path === paths.at(-1)) await screenshot(page, "hostile-resource-phone");
    });
    if (javaScriptEnabled) {
      // Downloads are data of the texts themselves, except for formulas in CSV.
      const rows = await json(page, `${site.hostile}/ui/resources`);
      const csv = parseCsv(await (await page.request.get(`${site.hostile}/ui/resources.csv`)).text());
      assert.equal(csv.length, rows.length);
      for (const row of csv) assert.ok(!Object.values(row).some((value) => /^\s*[=+@]/.test(value)), JSON.stringify(row));
      assert.ok(rows.some((row) => row.customer === site.hostile_texts.markup && row.path));
    }
  }, [new URL(site.hostile).origin]);
}

async function accessibility() {
  const looks = { light: {}, dark: { colorScheme: "dark" }, phone: { viewport: PHONE } };
  const faults = new Map();
  const analyse = async (page, where) => {
    await page.evaluate(axe);
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const { violations } = await page.evaluate((values) => globalThis.axe.run({ runOnly: { type: "tag", values }, resultTypes: ["violations"] }), tags);
    for (const { id, nodes } of violations) {
      const examples = nodes.slice(0, 2).map((node) => `${node.html.slice(0, 200)} (${node.failureSummary.replace(/\s+/g, " ").slice(0, 200)})`);
      faults.set(`${id}: ${examples.join("; ")}`, [...(faults.get(`${id}: ${examples.join("; ")}`) ?? []), where]);
    }
  };
  for (const [name, options] of Object.entries(looks)) {
    await operator({ ...options, bypassCSP: true }, async (page) => {
      const chosen = name === "light" ? await everyPage(page) : { ...PAGES, held: (await examples(page)).held };
      for (const [place, path] of Object.entries(chosen)) {
        await open(page, site.filled + path);
        await analyse(page, `${place} ${name}`);
        await screenshot(page, `${place}-${name}`);
      }
      await page.getByRole("button", { name: "Sign out" }).click();
      await analyse(page, `signed out ${name}`);
    });
    await visit({ ...options, bypassCSP: true }, async (page) => {
      for (const [place, path] of Object.entries(PAGES)) {
        await open(page, site.empty + path);
        await analyse(page, `empty ${place} ${name}`);
        await screenshot(page, `empty-${place}-${name}`);
        if (name === "phone") {
          await open(page, site.hostile + path);
          await analyse(page, `hostile ${place} ${name}`);
        }
      }
    });
  }
  assert.deepEqual([...faults].map(([fault, places]) => `${fault} on ${places.slice(0, 4).join(", ")}`), []);
}

async function preferences_and_print() {
  await operator({ forcedColors: "active" }, async (page) => {
    for (const [name, path] of Object.entries({ now: PAGES.now, resources: PAGES.resources, held: (await examples(page)).held })) {
      await open(page, site.filled + path);
      // Bars and dots are not only a background, which forced colours remove.
      const fills = await page.locator(".fill").evaluateAll((all) => all.map((it) => getComputedStyle(it).fill));
      const track = await page.locator(".track").evaluateAll((all) => all.map((it) => getComputedStyle(it).fill));
      assert.ok(fills.every((fill, position) => fill !== track[position]), name);
      await screenshot(page, `${name}-forced-colours`);
    }
  });
  await operator({ reducedMotion: "reduce" }, async (page) => {
    for (const path of Object.values(PAGES)) {
      await open(page, site.filled + path);
      const moving = await page.evaluate(() => document.getAnimations().length + [...document.querySelectorAll("*")].filter((it) => parseFloat(getComputedStyle(it).transitionDuration) > 0).length);
      assert.equal(moving, 0, path);
    }
  });
  await operator({ colorScheme: "dark" }, async (page) => {
    for (const [name, path] of Object.entries(await everyPage(page))) {
      await open(page, site.filled + path);
      await page.setViewportSize(PAPER);
      const visible = () => page.evaluate(() => {
        const content = "main h1, main h2, main p, main th, main td, main dt, main dd, main pre, main li, footer p";
        const shown = [...document.querySelectorAll(content)].filter((it) => !it.closest(".filters, .actions, .pager, .hidden") && it.textContent.trim());
        return shown.map((it) => [it.textContent.trim().slice(0, 40), it.checkVisibility() && it.getBoundingClientRect().height > 2]);
      });
      await page.emulateMedia({ media: "print", colorScheme: "light" });
      const lost = (await visible()).filter(([, isVisible]) => !isVisible);
      assert.deepEqual(lost, [], `not printed: ${path}`);
      await assertFits(page);
      // Nothing that scrolls is cut off.
      const cut = await page.locator("main *").evaluateAll((all) => all.filter((it) => !it.closest(".hidden, caption") && getComputedStyle(it).overflowX !== "visible" && it.scrollWidth > it.clientWidth + 1).map((it) => it.outerHTML.slice(0, 100)));
      assert.deepEqual(cut, [], `cut off in print: ${path}`);
      await screenshot(page, `${name}-print`);
      const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(dark, "rgb(255, 255, 255)");
      const pdf = await page.pdf({ path: `${site.screenshots}/${name}.pdf`, format: "A4" });
      assert.ok(pdf.length > 5000);
      await page.emulateMedia({ media: "screen", colorScheme: "dark" });
      await page.setViewportSize(DESKTOP);
    }
  });
}

async function two_replicas() {
  await operator({}, async (page) => {
    // Cookies of 127.0.0.1 belong to all ports, as if a load balancer chose the replica.
    let signIns = 0;
    page.on("request", (request) => (signIns += request.url().includes("/openid-connect/auth")));
    for (const base of [site.replica, site.filled, site.replica]) {
      const answer = await page.goto(`${base}/ui/resources?system=vast`);
      assert.equal(answer.status(), 200);
      assert.match(await text(page, "form.user"), /operator/);
    }
    assert.equal(signIns, 0);
  });
  // Begun at one replica, completed at the other.
  await visit({}, async (page) => {
    await page.goto(`${site.replica}/ui/changes`);
    await page.waitForURL(`${site.filled}/ui/changes`);
    assert.equal(await text(page, "h1"), "Changes");
    await page.goto(`${site.replica}/ui/changes`);
    await page.getByRole("link", { name: "Now" }).click();
    assert.equal(page.url(), `${site.replica}/ui/`);
  });
}

async function ten_thousand_resources() {
  await visit({}, async (page) => {
    const times = [];
    const paths = ["/ui/", "/ui/resources", "/ui/resources?view=tree&page=50", "/ui/resources?sort=usage&order=desc", "/ui/changes", "/ui/changes?page=20", "/ui/trash", "/ui/trash?trash=3&full=9&totals=5"];
    const [first] = await json(page, `${site.large}/ui/resources?page=1`);
    for (const path of [...paths, `/ui/resources/${first.id}`]) {
      const began = performance.now();
      const answer = await open(page, site.large + path);
      times.push(`${path.replace(first.id, "…")} ${Math.round(performance.now() - began)} ms, ${Math.round((await answer.body()).length / 1000)} KB`);
      await assertComplete(page, answer);
    }
    console.log(`  ${times.join("\n  ")}`);
    // Paging covers the selection.
    await open(page, `${site.large}/ui/resources?q=customer-1&sort=path`);
    const all = (await json(page, page.url())).map((row) => row.id);
    assert.ok(all.length > 3 * PAGE_SIZE);
    assert.equal(await page.locator(".pager a[rel=prev]").count(), 0);
    const seen = [];
    for (let number = 1; ; number += 1) {
      seen.push(...(await ids(page)));
      assert.match(await text(page, ".pager"), new RegExp(`Page ${number} of ${Math.ceil(all.length / PAGE_SIZE)}`));
      if (number === 4) break;
      await page.getByRole("link", { name: "Next" }).click();
      await page.waitForURL(new RegExp(`page=${number + 1}`));
    }
    assert.deepEqual(seen, all.slice(0, 4 * PAGE_SIZE));
    await page.getByRole("link", { name: "Previous" }).click();
    await page.waitForURL(/page=3/);
    assert.deepEqual(await ids(page), all.slice(2 * PAGE_SIZE, 3 * PAGE_SIZE));
    const last = Math.ceil(all.length / PAGE_SIZE);
    await open(page, `${site.large}/ui/resources?q=customer-1&sort=path&page=${last + 7}`);
    assert.deepEqual(await ids(page), all.slice((last - 1) * PAGE_SIZE));
    assert.equal(await page.locator(".pager a[rel=next]").count(), 0);
    for (const viewport of [DESKTOP, PHONE]) {
      await page.setViewportSize(viewport);
      await assertFits(page);
    }
    await screenshot(page, "large-resources-phone");
    await page.setViewportSize(DESKTOP);
    for (const name of ["now", "changes", "trash"]) {
      await open(page, site.large + PAGES[name]);
      await screenshot(page, `large-${name}-light`);
    }
  }, [new URL(site.large).origin]);
}

// These change the state of the filled site.
const FIRST = [sign_in_and_out, sign_in_without_the_role, session_that_expires_midway];
const CHECKS = [
  each_page, links_lead_to_pages, filters, sorting_and_tree, downloads, keyboard, hostile_texts, accessibility, preferences_and_print, two_replicas,
  ten_thousand_resources,
];

/** The same checks in a browser that runs no scripts. */
const withoutScripts = (checks) => checks.map((check) => Object.defineProperty(() => check(false), "name", { value: `${check.name}_without_javascript` }));

const isChosen = ({ name }) => site.names.length === 0 || site.names.some((part) => name.includes(part));
let failures = 0;

/** Runs the checks in this order. */
async function run(checks) {
  while (checks.length) {
    const check = checks.shift();
    const began = performance.now();
    const outcome = await check().then(() => "", (error) => `FAILED: ${error.stack}`);
    failures += outcome !== "";
    console.log(`${check.name.replaceAll("_", " ")}: ${((performance.now() - began) / 1000).toFixed(1)} s ${outcome}`);
  }
}

rmSync(site.screenshots, { recursive: true, force: true });
mkdirSync(site.screenshots, { recursive: true });
await run([...FIRST, ...withoutScripts([session_that_expires_midway])].filter(isChosen));
const rest = [...CHECKS, ...withoutScripts([each_page, filters, sorting_and_tree, downloads, keyboard, hostile_texts])].filter(isChosen);
await Promise.all([run(rest), run(rest)]);
await browser.close();
process.exitCode = failures ? 1 : 0;
if (failures) console.log(`${failures} checks failed`);
