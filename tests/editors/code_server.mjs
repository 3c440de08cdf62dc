// An extension in a real VS Code, served to a browser: node code_server.mjs URL SHOT SIGN, where SIGN is what it says in
// the status bar. A suggestion is waited for behind the second line of app.py, taken with the tab key and saved; facts
// are printed as JSON.
import { chromium } from "playwright-core";

const [url, shot, sign] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
process.on("uncaughtException", async (error) => {
  console.error(error);
  await page.screenshot({ path: shot });
  process.exit(1);
});
await page.goto(url);
await page.waitForSelector(".monaco-workbench", { timeout: 60000 });
await page.waitForSelector(`.statusbar-item >> text=${sign}`, { timeout: 60000 }); // the extension runs
await page.dblclick(".explorer-folders-view >> text=app.py");
await page.waitForSelector(".view-line >> text=retu");
await page.keyboard.press("Control+G");
await page.waitForSelector(".quick-input-widget input");
await page.keyboard.type("2:9");
await page.keyboard.press("Enter");
await page.keyboard.type("rn ", { delay: 250 }); // as a person does: the server is asked once the keys rest
await page.waitForSelector("[class*=ghost-text]", { timeout: 30000 });
await page.waitForTimeout(300);
const shown = await page.evaluate(() => [...document.querySelectorAll("[class*=ghost-text]")].map((x) => x.textContent).join(""));
await page.screenshot({ path: shot });
await page.keyboard.press("Tab");
await page.keyboard.press("Control+S");
await page.waitForTimeout(1000);
console.log(JSON.stringify({ shown }));
await browser.close();
