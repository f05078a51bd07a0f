// How full the context of the model is.

import { branch } from "./conversation.js";
import { byId } from "./dom.js";

/** Show how much of the model's context the shown branch fills, as the server counted at the last answer. */
export function showContext(conversation, context) {
  const usage = branch(conversation).findLast((message) => message.usage)?.usage;
  const used = usage ? usage.prompt + usage.answer : 0;
  const of = context ? ` of ${context.toLocaleString("en")}` : "";
  byId("context").textContent = used ? `${used.toLocaleString("en")}${of} tokens of context` : "";
  byId("context").classList.toggle("full", Boolean(context) && used > context * 0.9);
}
