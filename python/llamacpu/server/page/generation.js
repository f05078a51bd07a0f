// An answer while it is written: it goes on while another conversation is looked at, and is saved as it grows.

import { chat, ServerError } from "./api.js";
import { requestMessages } from "./conversation.js";

const SAVE_EVERY = 2000; // milliseconds

export class Generation {
  conversation;
  message;
  /** What the page says while no token has come. */
  started = performance.now();
  /** How much of the prompt is read, as the server told it last; null before that. */
  progress = null;
  #controller = new AbortController();
  #first = 0;
  #last = 0;
  #pieces = 0;
  #saved = performance.now();

  /**
   * conversation, message  where the answer goes; the message is the end of a branch
   * hooks                  {changed(generation), ended(generation, error or null), save(conversation)}
   */
  constructor(conversation, message, hooks) {
    this.conversation = conversation;
    this.message = message;
    this.hooks = hooks;
  }

  stop() {
    this.#controller.abort();
  }

  /** Ask for the answer, or for more of it where it has begun. Never raises: how it ended is in the message. */
  async run() {
    const { message } = this;
    const beginning = message.content;
    let error = null;
    message.status = "writing";
    delete message.error;
    try {
      for await (const chunk of chat(this.#request(beginning), this.#controller.signal)) this.#take(chunk);
      if (message.status === "writing") message.status = "done";
    } catch (caught) {
      error = this.#fail(caught);
    }
    this.#measure(beginning);
    message.changed = Date.now();
    this.conversation.updated = message.changed;
    this.hooks.ended(this, error);
    await this.hooks.save(this.conversation);
  }

  #request(beginning) {
    const { conversation, message } = this;
    const messages = requestMessages(conversation, message.id);
    const more = beginning ? { add_generation_prompt: false, continue_final_message: true } : {};
    return { model: message.model, messages, ...conversation.settings, ...more, return_progress: true };
  }

  #take(chunk) {
    const { message } = this;
    if (chunk.prompt_progress) this.progress = chunk.prompt_progress;
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    const now = performance.now();
    const content = text(delta.content) + text(delta.refusal);
    const reasoning = text(delta.reasoning_content) || text(delta.reasoning);
    if (content || reasoning) {
      this.#first ||= now;
      this.#last = now;
      this.#pieces += 1;
    }
    if (reasoning) message.reasoning = (message.reasoning ?? "") + reasoning;
    if (content) {
      if (message.reasoning && !message.content) message.thought = (now - this.#first) / 1000;
      message.content += content;
    }
    const ends = { length: "length", content_filter: "filtered" };
    if (choice?.finish_reason) message.status = ends[choice.finish_reason] ?? "done";
    if (chunk.usage) {
      message.usage = {
        prompt: count(chunk.usage.prompt_tokens), answer: count(chunk.usage.completion_tokens),
        cached: count(chunk.usage.prompt_tokens_details?.cached_tokens),
      };
    }
    const speed = chunk.timings?.predicted_per_second ?? chunk.timings?.tokens_per_second;
    if (Number.isFinite(speed) && speed > 0) this.speed = speed;
    if (now - this.#saved > SAVE_EVERY) {
      this.#saved = now;
      message.changed = Date.now();
      this.hooks.save(this.conversation);
    }
    this.hooks.changed(this);
  }

  #fail(caught) {
    const { message } = this;
    if (caught.name === "AbortError") {
      message.status = "stopped";
      return null;
    }
    // An answer that said how it ended is whole, even if the connection broke behind that.
    if (message.status !== "writing") return null;
    const known = caught instanceof ServerError;
    message.status = known && caught.kind === "lost" ? "lost" : "failed";
    message.error = known ? caught.message : `This page made a mistake: ${caught.message}`;
    return caught;
  }

  #measure(beginning) {
    const { message } = this;
    const seconds = (this.#last - this.#first) / 1000;
    const tokens = message.usage?.answer || this.#pieces;
    if (this.speed) message.speed = this.speed;
    else if (tokens > 1 && seconds > 0) message.speed = (tokens - 1) / seconds;
    if (message.reasoning && !message.content && message.content === beginning) message.thought = seconds;
    // What was counted for an earlier part says nothing of the whole.
    if (this.#pieces > 0 && message.status !== "done" && message.status !== "length") delete message.usage;
  }

  /** Tokens per second so far, by the pieces that came; null while there are too few. */
  get rate() {
    const seconds = (performance.now() - this.#first) / 1000;
    return this.#pieces > 4 && seconds > 0.3 ? (this.#pieces - 1) / seconds : null;
  }

  /** What the server does while no token has come. */
  get doing() {
    const { total, processed, pictures } = this.progress ?? {};
    if (pictures?.encoded < pictures?.total) {
      const number = Math.floor(pictures.encoded) + 1;
      return pictures.total > 1 ? `Looking at picture ${number} of ${pictures.total}…` : "Looking at the picture…";
    }
    const share = total > 0 && processed >= 0 ? ` ${Math.floor((100 * Math.min(processed, total)) / total)} %` : "";
    return `Reading the prompt…${share}`;
  }

  get waiting() {
    return this.#pieces === 0;
  }
}

function text(value) {
  return typeof value === "string" ? value : "";
}

function count(value) {
  return Number.isSafeInteger(value) && value >= 0 ? value : 0;
}
