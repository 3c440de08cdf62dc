// A conversation with the chosen model.
import { answer } from "./server.js";

export function chat($, model) {
  const messages = [];
  let leaving = null;

  function add(role, text) {
    const item = document.createElement("li");
    item.className = role;
    item.textContent = text;
    $("talk").append(item);
    item.scrollIntoView({ block: "end" });
    return item;
  }

  async function say(event) {
    event.preventDefault();
    if (leaving) return leaving.abort();
    const words = $("words").value.trim();
    if (!words) return;
    $("words").value = "";
    messages.push({ role: "user", content: words });
    add("user", words);
    const item = add("assistant", "…");
    leaving = new AbortController();
    $("send").textContent = "Stop";
    let text = "";
    try {
      for await (const piece of answer(model(), messages, leaving.signal)) {
        text += piece;
        item.textContent = text || "…";
        item.scrollIntoView({ block: "end" });
      }
    } catch (error) {
      if (error.name !== "AbortError") text = error.message;
    }
    item.textContent = text.trim() || "(nothing)";
    messages.push({ role: "assistant", content: text.trim() });
    leaving = null;
    $("send").textContent = "Send";
  }

  $("say").addEventListener("submit", say);
  $("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) say(event);
  });
}
