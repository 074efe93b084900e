// Signs in to the pages for operators at a real Keycloak, in Chromium, and out again. Arguments: the folder of the modules, the URL of the
// proxy, and a name, which is also the password.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [modules, proxy, name] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)("playwright-core");
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
// The certificate of the realm is signed by an authority of the test.
const page = await browser.newPage({ ignoreHTTPSErrors: true });
page.setDefaultTimeout(60_000);

async function signIn(path) {
  await page.goto(proxy + path);
  await page.locator("#username").fill(name);
  await page.locator("#password").fill(name);
  await page.locator("#kc-login").click();
  await page.waitForURL(proxy + path);
  const text = await page.locator("body").innerText();
  assert.ok(text.includes(name) && text.includes("Sign out"), text);
}

await signIn("/ui/resources?q=a%20b");
await page.getByRole("link", { name: "Trash and usage" }).click();
await page.getByRole("heading", { name: "Trash and usage", level: 1 }).waitFor();
await page.getByRole("button", { name: "Sign out" }).click();
await page.getByText("You are signed out here and at the identity provider.").waitFor();
// Keycloak asks again.
await signIn("/ui/");
await browser.close();
