// The server: its models, and answers as they are written. Addresses are relative, so that the page may lie anywhere.

import { session } from "./options.js";

/**
 * What went wrong, in words for a person.
 *
 * kind  "unreachable" (no connection), "lost" (it broke in the middle), "key" (the API key is missing or wrong),
 *       "busy" (try again) or "refused" (the server said no)
 */
export class ServerError extends Error {
  constructor(kind, words) {
    super(words);
    this.kind = kind;
  }
}

function headers(more = {}) {
  const key = session.get("key");
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function request(path, options) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("unreachable", "The server cannot be reached. Is it still running?");
  }
}

/** The words of an answer that is an error. */
async function refusal(response) {
  let said = "";
  try {
    const text = (await response.text()).slice(0, 20_000);
    try {
      said = wordsOf(JSON.parse(text));
    } catch {
      // A page of a proxy says less than the status does.
      said = text.trimStart().startsWith("<") ? "" : text.trim();
    }
  } catch {
    // The status alone has to do.
  }
  said = said.slice(0, 1000);
  const { status } = response;
  if (status === 401 || status === 403) {
    const why = session.get("key") ? "The server does not accept this API key." : "The server wants an API key.";
    return new ServerError("key", status === 401 || !said ? why : said);
  }
  if (status === 429 || status === 503) {
    const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    const when = wait > 0 ? `Try again in ${wait} ${wait === 1 ? "second" : "seconds"}.` : "Try again in a moment.";
    return new ServerError("busy", `${said ? sentence(said) : "The server is busy."} ${when}`);
  }
  return new ServerError("refused", said ? sentence(said) : `The server answered with status ${status}.`);
}

/** The message of an error object, in the shapes that servers use. */
function wordsOf(body) {
  const error = body?.error ?? body?.detail ?? body;
  const words = typeof error === "string" ? error : error?.message;
  return typeof words === "string" ? words.trim() : "";
}

function sentence(words) {
  return /[.!?…]$/.test(words) ? words : `${words}.`;
}

/** The models that the server offers: [{id, context}], context in tokens, or null where it does not say. */
export async function models() {
  const response = await request("v1/models", { headers: headers() });
  if (!response.ok) throw await refusal(response);
  let body;
  try {
    body = await response.json();
  } catch {
    throw new ServerError("refused", "The server's list of models is not JSON.");
  }
  const list = Array.isArray(body?.data) ? body.data : [];
  return list.filter((entry) => typeof entry?.id === "string").map((entry) => ({ id: entry.id, context: contextOf(entry) }));
}

function contextOf(entry) {
  const found = [entry.meta?.n_ctx, entry.context_length, entry.max_model_len, entry.context_window, entry.meta?.n_ctx_train];
  return found.find((value) => Number.isSafeInteger(value) && value > 0) ?? null;
}

/** The chunks of a streamed chat completion. Ends when the server says that it is done; raises ServerError. */
export async function* chat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST", signal, headers: headers({ "Content-Type": "application/json", Accept: "text/event-stream" }),
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
  });
  if (!response.ok) throw await refusal(response);
  if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream") || !response.body) {
    throw new ServerError("refused", "The server did not answer with a stream of events.");
  }
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ServerError("lost", "The server sent something that is not JSON.");
    }
    if (chunk?.error) throw new ServerError("refused", sentence(wordsOf(chunk) || "The server reported an error"));
    yield chunk;
  }
  throw new ServerError("lost", "The connection to the server was lost.");
}

/** The data of server-sent events. */
export async function* events(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ServerError("lost", "The connection to the server was lost.");
      }
      // A carriage return may be half of a line's end: it waits for the next piece.
      const lines = (rest + (piece.done ? decoder.decode() : decoder.decode(piece.value, { stream: true }))).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        }
      }
      if (piece.done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
