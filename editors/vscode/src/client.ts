// The server's HTTP interface, as much of it as the extension needs.
export interface Settings {
  url: string;
  model: string;
  key?: string;
}

export interface Infill {
  prefix: string;
  suffix: string;
  maxTokens: number;
  layout: string;
  session: string;
  invoked: boolean;
  extra: { filename: string; text: string }[];
}

export class ServerError extends Error {}

export async function post(settings: Settings, path: string, body: object, signal?: AbortSignal): Promise<any> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (settings.key) headers.Authorization = `Bearer ${settings.key}`;
  const named = settings.model ? { model: settings.model, ...body } : body;
  let answer: Response;
  try {
    answer = await fetch(settings.url.replace(/\/+$/, "") + path, {
      method: "POST", headers, body: JSON.stringify(named), signal,
    });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new ServerError(`${settings.url} does not answer; is \`midspan serve\` running?`);
  }
  const found: any = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ServerError(found.error?.message ?? `${settings.url} answered ${answer.status}`);
  return found;
}

export async function infill(settings: Settings, asked: Infill, signal: AbortSignal): Promise<string> {
  const body = {
    input_prefix: asked.prefix, input_suffix: asked.suffix, input_extra: asked.extra, n_predict: asked.maxTokens,
    temperature: 0, session: asked.session, stop_rules: asked.invoked ? "invoked" : "editor", response_fields: ["content"],
    ...(asked.layout === "auto" ? {} : { layout: asked.layout }),
  };
  return (await post(settings, "/infill", body, signal)).content ?? "";
}
