// The server's own public interface, asked as any other client asks it.
let key = sessionStorage.getItem("midspan-key") ?? "";

async function send(path, body, signal) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  if (answer.status === 401 && (key = prompt("This server asks for a key") ?? "")) {
    sessionStorage.setItem("midspan-key", key);
    return send(path, body, signal);
  }
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  return answer;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

export async function models() {
  return (await (await send("v1/models")).json()).data.map((model) => model.id);
}

export async function infill({ prefix, suffix, model, layout, tokens, rules, session }, signal, piece) {
  const body = {
    model, input_prefix: prefix, input_suffix: suffix, n_predict: tokens, temperature: 0, stream: true, session,
    stop_rules: rules, ...(layout !== "auto" && { layout }),
  };
  let text = "", last = null;
  for await (const event of events(await send("infill", body, signal))) {
    text += event.content;
    if (event.content) piece(text);
    if (event.stop) last = event;
  }
  return { text, last };
}

export async function* answer(model, messages, signal) {
  const body = { model, messages, stream: true, max_tokens: 512, temperature: 0.2 };
  for await (const event of events(await send("v1/chat/completions", body, signal))) {
    yield event.choices[0]?.delta?.content ?? "";
  }
}
