// One client asks a running server: node ask.mjs CLIENT URL PREFIX SUFFIX; what it got is printed as JSON.
const [name, url, prefix, suffix] = process.argv.slice(2);
const max_tokens = 12;

async function joined(stream, piece) {
  let text = "";
  for await (const event of stream) text += piece(event) ?? "";
  return text;
}

const clients = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const body = { model: "code", prompt: prefix, suffix, max_tokens };
    const whole = (await client.completions.create(body)).choices[0].text;
    const stream = await client.completions.create({ ...body, stream: true });
    const streamed = await joined(stream, (event) => event.choices[0]?.text);
    const messages = [{ role: "user", content: "hi" }];
    const chat = await client.chat.completions.create({ model: "code", messages, max_tokens: 4, temperature: 0 });
    const models = (await client.models.list()).data.map((model) => model.id);
    const leaving = new AbortController();
    const long = client.completions.create(
      { model: "code", prompt: "x = ", max_tokens: 3900, temperature: 1, stream: true },
      { signal: leaving.signal },
    );
    for await (const _ of await long) {
      leaving.abort();
      break;
    }
    return { whole, streamed, chat: chat.choices[0].message.content, models };
  },

  async continue() {
    const { constructLlmApi } = await import("@continuedev/openai-adapters");
    const found = {};
    for (const provider of ["openai", "mistral", "deepseek"]) {
      const apiBase = provider === "deepseek" ? `${url}/` : `${url}/v1/`;
      const api = constructLlmApi({ provider, apiBase, apiKey: "none" });
      const signal = new AbortController().signal;
      const body = { model: "code", prompt: prefix, suffix, max_tokens, stream: true };
      found[provider] = await joined(api.fimStream(body, signal), (event) => event.choices[0]?.delta?.content);
    }
    return { whole: found.openai, streamed: found.mistral, deepseek: found.deepseek };
  },

  async mistral() {
    const { Mistral } = await import("@mistralai/mistralai");
    const client = new Mistral({ serverURL: url, apiKey: "none" });
    const body = { model: "code", prompt: prefix, suffix, maxTokens: max_tokens };
    const whole = (await client.fim.complete(body)).choices[0].message.content;
    const streamed = await joined(await client.fim.stream(body), (event) => event.data.choices[0].delta.content);
    return { whole, streamed };
  },

  async ollama() {
    const { Ollama } = await import("ollama");
    const client = new Ollama({ host: url });
    const body = { model: "code", prompt: prefix, suffix, options: { num_predict: max_tokens, temperature: 0 } };
    const whole = (await client.generate({ ...body, stream: false })).response;
    const streamed = await joined(await client.generate({ ...body, stream: true }), (event) => event.response);
    const models = (await client.list()).models.map((model) => model.name);
    const { template } = await client.show({ model: "code" });
    return { whole, streamed, models, infills: template.includes(".Suffix") };
  },
};

console.log(JSON.stringify(await clients[name]()));
