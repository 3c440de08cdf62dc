// The playground in a real browser: node browse.mjs URL FOLDER; screenshots go into the folder, facts are printed as JSON.
import { chromium } from "playwright-core";

const [url, folder] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const complaints = [], elsewhere = [];

async function open(width, height, colorScheme) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme });
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("data:") || elsewhere.push(request.url()));
  await page.goto(url);
  await page.waitForSelector(".card");
  return page;
}

// The file as it stands, without what is only shown.
const text = (page) => page.evaluate(() => [...document.querySelectorAll(".cm-line")].map((line) => {
  const copy = line.cloneNode(true);
  for (const shown of copy.querySelectorAll(".ghost")) shown.remove();
  return copy.textContent;
}).join("\n"));
const whole = (page) => page.waitForFunction(() => document.querySelector(".ghost") && document.querySelector(".card"));
const ghost = (page) => page.evaluate(() => document.querySelector(".ghost")?.textContent ?? "");

const found = { complaints, elsewhere };
const page = await open(1280, 800, "light");
found.suggested = await ghost(page);
found.card = await page.locator(".card dl").first().innerText();
await page.screenshot({ path: `${folder}/light.png` });

await page.uncheck("#rules"); // so that any model has something to offer everywhere
await page.locator(".cm-content").focus();
const before = await text(page);
await page.keyboard.press("Escape");
found.dismissed = await ghost(page);
await page.keyboard.press("Control+Space");
await whole(page);
const offered = await ghost(page);
await page.keyboard.type(offered[0] === "\n" ? "x" : offered[0]);
found.typedOn = offered[0] === "\n" || (await ghost(page)) === offered.slice(1);
await page.keyboard.press("Escape");
await page.keyboard.press("Backspace");
await whole(page);
await page.keyboard.press("Control+ArrowRight");
found.word = (await text(page)).length > before.length;
if (!(await ghost(page))) await page.keyboard.press("Control+Space");
await whole(page);
const rest = await ghost(page);
const length = (await text(page)).length;
await page.keyboard.press("Tab");
found.accepted = (await text(page)).length === length + rest.length;

await page.selectOption("#beside", { index: 1 });
await page.waitForFunction(() => document.querySelectorAll(".card").length === 2);
found.beside = await page.locator(".card").count();
await page.click("#tab-chat");
await page.fill("#words", "Say hello.");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelector("#send").textContent === "Send" && document.querySelectorAll("#talk li").length === 2);
found.answer = await page.locator("#talk .assistant").innerText();
await page.screenshot({ path: `${folder}/chat.png` });

const dark = await open(1280, 800, "dark");
await dark.screenshot({ path: `${folder}/dark.png` });
const narrow = await open(400, 800, "light");
found.wider = await narrow.evaluate(() => document.documentElement.scrollWidth > innerWidth);
await narrow.screenshot({ path: `${folder}/narrow.png` });
await browser.close();
console.log(JSON.stringify(found));
